package identity_test

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
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// memory is a source that the test fills.
type memory struct {
	mu       sync.Mutex // guards what follows
	identity identity.Identity
	err      error
	hang     bool
	asked    int
}

func (m *memory) source(ctx context.Context) (identity.Identity, error) {
	m.mu.Lock()
	m.asked++
	current, err, hang := m.identity, m.err, m.hang
	m.mu.Unlock()
	if hang {
		<-ctx.Done()
		return identity.Identity{}, ctx.Err()
	}
	return current, err
}

func (m *memory) set(change func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func identityOf(t testing.TB, ca *pki.CA, client pki.Pair) identity.Identity {
	t.Helper()
	cert, err := tls.X509KeyPair(client.CertPEM, client.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM)
	return identity.Identity{Certificate: cert, Roots: roots}
}

func TestAnIdentityFromASourceIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		d := openDoor(t, l.CA, l.Server)
		server := startBehind(t, d, grpctest.Config{InMemory: true})
		m := &memory{identity: identityOf(t, l.CA, l.Client)}
		f, err := fromSource(m.source, server.Target(), nil, grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
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

// Dials, reloads and calls of Info run concurrently while the identity changes: each
// connection shows an identity that was the newest at some time, and the last one stays.
func TestIdentitiesChangeWhileChannelsAreMade(t *testing.T) {
	l := localhost(t)
	d := openDoor(t, l.CA, l.Server)
	server := startBehind(t, d, grpctest.Config{})
	m := &memory{identity: identityOf(t, l.CA, l.Client)}
	f, err := fromSource(m.source, server.Addr(), options{identity.WithReloadInterval(time.Millisecond)})
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
		next := identityOf(t, l.CA, last)
		m.set(func(m *memory) { m.identity = next })
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

// stuck is a source that can be made to ignore its context.
type stuck struct {
	identity identity.Identity

	mu      sync.Mutex    // guards what follows
	release chan struct{} // nil: it answers at once; else it answers when this is closed
	asked   int
}

func (s *stuck) source(context.Context) (identity.Identity, error) {
	s.mu.Lock()
	s.asked++
	release := s.release
	s.mu.Unlock()
	if release != nil {
		<-release
	}
	return s.identity, nil
}

// hold makes the source hang until the function that it returns is called.
func (s *stuck) hold() (release func()) {
	held := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release, s.asked = held, 0
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.release = nil
		s.mu.Unlock()
		close(held)
	})
}

func (s *stuck) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// A source that ignores its context costs one goroutine, and delays one handshake in ten
// seconds by a second. The connections and the identity stay, and the error says why.
func TestASourceThatDoesNotComeBackDelaysOneHandshakeByASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		d := openDoor(t, l.CA, l.Server)
		server := startBehind(t, d, grpctest.Config{InMemory: true})
		s, log := &stuck{identity: identityOf(t, l.CA, l.Client)}, new(logBook)
		f, err := fromSource(s.source, server.Target(), options{identity.WithLogger(log.logger())},
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		release := s.hold()
		defer release()

		for i, want := range []time.Duration{time.Second, 0, 0} {
			begun := time.Now()
			wantConnection(t, f)
			if took := time.Since(begun); took != want {
				t.Errorf("dial %d with a source that hangs took %v, want %v", i+1, took, want)
			}
		}
		for range 60 {
			time.Sleep(time.Second)
			if _, err := testpb.NewTestServiceClient(conn).EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
				t.Errorf("a call failed: %v", err)
			}
		}
		if n := s.times(); n != 1 {
			t.Errorf("a source that hangs was asked %d times, want once", n)
		}
		id := f.Identity()
		if id.Generation != 1 || !errors.Is(id.LastError, context.DeadlineExceeded) || log.count("WARN", "reload failed") == 0 {
			t.Errorf("the identity is %+v, with %d warnings", id, log.count("WARN", "reload failed"))
		}
		wantError(t, id.LastError, "identity: FromSource: the source has not answered after")
		if shown := d.shown(serialOf(t, l.Client)); shown != 4 {
			t.Errorf("%d connections were made, want 4", shown)
		}

		begun := time.Now()
		wantError(t, f.Close(), "identity: closing: a goroutine is still waiting: FromSource: the source has not answered after")
		if took := time.Since(begun); took != time.Second {
			t.Errorf("Close took %v", took)
		}
		release()
		if err := f.Close(); err != nil {
			t.Errorf("with the source back: %v", err)
		}
		if err := f.Reload(t.Context()); err != nil || f.Identity().LastError != nil {
			t.Errorf("with the source back: %v, %v", err, f.Identity().LastError)
		}
		conn.Close()
	})
}

// If a dial has less time than a source that hangs, only the first dial fails: the next
// ones do not wait for the source.
func TestASourceThatHangsCostsAnImpatientProgramOneDial(t *testing.T) {
	for name, ignores := range map[string]bool{"ends with its context": false, "ignores its context": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := localhost(t)
				server := grpctest.Start(t, grpctest.Config{InMemory: true, TLS: serverTLS(t, l.CA, l.Server)})
				s := &stuck{identity: identityOf(t, l.CA, l.Client)}
				m := &memory{identity: s.identity}
				source := m.source
				if ignores {
					source = s.source
				}
				f, err := fromSource(source, server.Target(), nil, grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				m.set(func(m *memory) { m.hang = true })
				release := s.hold()
				failed := 0
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
					conn, err := f.NewConnection(ctx)
					cancel()
					if err != nil {
						failed++
						continue
					}
					conn.Close()
				}
				if failed != 1 {
					t.Errorf("%d of 20 dials failed, want 1", failed)
				}
				release()
				if err := f.Close(); err != nil { // waits for the check that the dial left behind
					t.Error(err)
				}
			})
		})
	}
}

func TestASourceThatDoesNotComeBackIsRefusedAtConstruction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		s := &stuck{identity: identityOf(t, l.CA, l.Client)}
		defer s.hold()()
		begun := time.Now()
		_, err := fromSource(s.source, "localhost:1", nil)
		wantError(t, err, "identity: FromSource: the source has not answered after 10s")
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("it took %v, want 10 s", took)
		}
	})
}

// session is access to a key in an HSM.
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
// session before, for a certificate that stays the same. Every handshake signs with the
// newest session. Connections, log and generation stay as they are, since the server
// would see no difference.
func TestARenewedSignerOfTheSameCertificateIsUsedAndReplacesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		d := openDoor(t, l.CA, l.Server)
		server := startBehind(t, d, grpctest.Config{InMemory: true})
		first := identityOf(t, l.CA, l.Client)
		key := first.Certificate.PrivateKey.(crypto.Signer)
		var last *session // the factory asks one at a time
		sessions := 0
		source := func(context.Context) (identity.Identity, error) {
			if last != nil {
				last.ended.Store(true)
			}
			last = &session{Signer: key}
			sessions++
			renewed := first
			renewed.Certificate.PrivateKey = last
			return renewed, nil
		}
		log := new(logBook)
		f, err := fromSource(source, server.Target(), options{identity.WithLogger(log.logger())},
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		made := f.Identity().LoadedAt
		// Between two checks: a handshake that signs while the source ends its session
		// fails, with any client.
		time.Sleep(5*time.Minute + 5*time.Second)
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
		change func(*identity.Identity)
		want   string
	}{
		"no certificate": {func(i *identity.Identity) { i.Certificate.Certificate = nil }, "no client certificate"},
		"garbage":        {func(i *identity.Identity) { i.Certificate.Certificate = [][]byte{[]byte("x")} }, "cannot be parsed"},
		"no key":         {func(i *identity.Identity) { i.Certificate.PrivateKey = nil }, "want a crypto.Signer"},
		"another's key": {func(i *identity.Identity) {
			i.Certificate.PrivateKey = identityOf(t, l.CA, other.Client).Certificate.PrivateKey
		}, "does not match"},
		"for a server":    {func(i *identity.Identity) { i.Certificate = identityOf(t, l.CA, l.Server).Certificate }, "not for client authentication"},
		"no roots":        {func(i *identity.Identity) { i.Roots = nil }, "no roots"},
		"empty roots":     {func(i *identity.Identity) { i.Roots = x509.NewCertPool() }, "no roots"},
		"as it should be": {func(*identity.Identity) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			changed := good
			test.change(&changed)
			m := &memory{identity: changed}
			_, err := fromSource(m.source, "localhost:1", nil)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, "identity: FromSource: ", test.want)
		})
	}
}
