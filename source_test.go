package grpcpool_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// memory is a certificate source that the test fills.
type memory struct {
	mu       sync.Mutex // guards what follows
	identity grpcpool.Identity
	err      error
	hang     bool
	asked    int
}

func (m *memory) source(ctx context.Context) (grpcpool.Identity, error) {
	m.mu.Lock()
	m.asked++
	identity, err, hang := m.identity, m.err, m.hang
	m.mu.Unlock()
	if hang {
		<-ctx.Done()
		return grpcpool.Identity{}, ctx.Err()
	}
	return identity, err
}

func (m *memory) set(change func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func identityOf(t testing.TB, ca *pki.CA, client pki.Pair) grpcpool.Identity {
	t.Helper()
	cert, err := tls.X509KeyPair(client.CertPEM, client.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM)
	return grpcpool.Identity{Certificate: cert, Roots: roots}
}

func TestAnIdentityFromASourceIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		d := openDoor(t, l.CA, l.Server)
		server := startBehind(t, d, grpctest.Config{InMemory: true})
		m := &memory{identity: identityOf(t, l.CA, l.Client)}
		f, err := grpcpool.NewMutualTLSFactory(nil, nil, nil, server.Target(), 0, 0, nil,
			grpcpool.WithCertificateSource(m.source), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()

		// Pushed.
		second := issue(t, l.CA, pki.Request{})
		m.set(func(m *memory) { m.identity = identityOf(t, l.CA, second) })
		if err := f.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		if id := f.Identity(); id.Generation != 2 || id.Serial != serialOf(t, second) {
			t.Errorf("after Reload: %+v", id)
		}

		// Failing, and hanging: neither stops a dial.
		failure := errors.New("the vault is sealed")
		m.set(func(m *memory) { m.err = failure })
		time.Sleep(11 * time.Second)
		if err := f.Identity().LastError; !errors.Is(err, failure) {
			t.Errorf("LastError is %v", err)
		}
		m.set(func(m *memory) { m.hang = true })
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			conn, err := f.NewConnection(ctx)
			cancel()
			if err != nil {
				t.Fatalf("with a source that hangs: %v", err)
			}
			conn.Close()
			time.Sleep(15 * time.Second)
		}
		if err := f.Identity().LastError; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("LastError is %v", err)
		}

		// Polled.
		third := issue(t, l.CA, pki.Request{})
		m.set(func(m *memory) { m.identity, m.err, m.hang = identityOf(t, l.CA, third), nil, false })
		time.Sleep(30 * time.Second)
		if id := f.Identity(); id.Generation != 3 || id.Serial != serialOf(t, third) || id.LastError != nil {
			t.Errorf("after the source has recovered: %+v", id)
		}
		d.wantNobodyRefused(t)
	})
}

// Dials, reloads and looks at the identity go on at the same time while it changes:
// each connection shows some identity that was the newest once, and the last one
// stays.
func TestIdentitiesChangeWhileChannelsAreMade(t *testing.T) {
	l := localhost(t)
	d := openDoor(t, l.CA, l.Server)
	server := startBehind(t, d, grpctest.Config{})
	m := &memory{identity: identityOf(t, l.CA, l.Client)}
	f, err := grpcpool.NewMutualTLSFactory(nil, nil, nil, server.Addr(), 0, 0, nil,
		grpcpool.WithCertificateSource(m.source), grpcpool.WithReloadInterval(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	var last pki.Pair
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for range 10 {
				wantConnection(t, f)
				if err := f.Reload(testContext(t)); err != nil {
					t.Error(err)
				}
				if id := f.Identity(); id.Generation == 0 || id.LastError != nil {
					t.Errorf("the identity is %+v", id)
				}
			}
		})
	}
	for range 20 {
		last = issue(t, l.CA, pki.Request{})
		identity := identityOf(t, l.CA, last)
		m.set(func(m *memory) { m.identity = identity })
		if err := f.Reload(testContext(t)); err != nil {
			t.Error(err)
		}
	}
	running.Wait()
	if id := f.Identity(); id.Serial != serialOf(t, last) || id.Generation != 21 {
		t.Errorf("in the end the identity is %+v, want generation 21 with %s", id, serialOf(t, last))
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	d.wantNobodyRefused(t)
}

// session is a key in an HSM, as one session with it gives access to it.
type session struct {
	crypto.Signer

	ended atomic.Bool
}

func (s *session) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.ended.Load() {
		return nil, errors.New("pkcs11: CKR_SESSION_HANDLE_INVALID")
	}
	return s.Signer.Sign(random, digest, opts)
}

// A source makes a new session with the HSM each time it is asked, which ends the
// one before, for a certificate that stays the same. Every handshake signs with the
// newest session. The connections stay, since nothing that a server could see has
// changed, and neither the log nor the generation says that something has.
func TestARenewedSignerOfTheSameCertificateIsUsedAndReplacesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		d := openDoor(t, l.CA, l.Server)
		server := startBehind(t, d, grpctest.Config{InMemory: true})
		identity := identityOf(t, l.CA, l.Client)
		key := identity.Certificate.PrivateKey.(crypto.Signer)
		var last *session // the factory asks one at a time
		sessions := 0
		source := func(context.Context) (grpcpool.Identity, error) {
			if last != nil {
				last.ended.Store(true)
			}
			last = &session{Signer: key}
			sessions++
			renewed := identity
			renewed.Certificate.PrivateKey = last
			return renewed, nil
		}
		log := new(logBook)
		f, err := grpcpool.NewMutualTLSFactory(nil, nil, nil, server.Target(), 0, 0, nil, grpcpool.WithLogger(log.logger()),
			grpcpool.WithCertificateSource(source), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		made := f.Identity().LoadedAt
		time.Sleep(5 * time.Minute)
		if shown := d.shown(serialOf(t, l.Client)); shown != 1 {
			t.Errorf("%d connections were made in five minutes, want the first only", shown)
		}
		if err := f.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		wantConnection(t, f)
		if id := f.Identity(); sessions < 30 || id.Generation != 1 || !id.LoadedAt.Equal(made) || id.LastError != nil {
			t.Errorf("after %d sessions the identity is %+v, want the first generation", sessions, id)
		}
		if n := log.count("INFO", "") + log.count("WARN", ""); n != 0 {
			t.Errorf("%d lines were logged, want none", n)
		}
		d.wantNobodyRefused(t)
	})
}

func TestAnIdentityThatCannotBeUsedIsRefusedAtConstruction(t *testing.T) {
	l, other := localhost(t), localhost(t)
	good := identityOf(t, l.CA, l.Client)
	for name, test := range map[string]struct {
		change func(*grpcpool.Identity)
		want   string
	}{
		"no certificate": {func(i *grpcpool.Identity) { i.Certificate.Certificate = nil }, "no client certificate"},
		"garbage":        {func(i *grpcpool.Identity) { i.Certificate.Certificate = [][]byte{[]byte("x")} }, "cannot be parsed"},
		"no key":         {func(i *grpcpool.Identity) { i.Certificate.PrivateKey = nil }, "want a crypto.Signer"},
		"another's key": {func(i *grpcpool.Identity) {
			i.Certificate.PrivateKey = identityOf(t, l.CA, other.Client).Certificate.PrivateKey
		}, "does not match"},
		"for a server":    {func(i *grpcpool.Identity) { i.Certificate = identityOf(t, l.CA, l.Server).Certificate }, "not for client authentication"},
		"no roots":        {func(i *grpcpool.Identity) { i.Roots = nil }, "no roots"},
		"empty roots":     {func(i *grpcpool.Identity) { i.Roots = x509.NewCertPool() }, "no roots"},
		"as it should be": {func(*grpcpool.Identity) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			identity := good
			test.change(&identity)
			m := &memory{identity: identity}
			_, err := grpcpool.NewMutualTLSFactory(nil, nil, nil, "localhost:1", 0, 0, nil, grpcpool.WithCertificateSource(m.source))
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, "grpcpool: WithCertificateSource: ", test.want)
		})
	}
	_, err := newFactory(l, "localhost:1", grpcpool.WithCertificateSource(new(memory).source))
	wantError(t, err, "the three PEM arguments must be nil")
}
