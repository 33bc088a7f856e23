package grpcpool_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
	"github.com/davidwartell/go-grpcpool/shared"
)

// load calls the server about a thousand times a second until its stop.
type load struct {
	calls, failed atomic.Int64
	stop          func() // and waits
}

func startLoad(t testing.TB, conn grpc.ClientConnInterface) *load {
	t.Helper()
	const callers = 20
	l, done := new(load), make(chan struct{})
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			tick := time.NewTicker(callers * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
				}
				l.calls.Add(1)
				if _, err := testpb.NewTestServiceClient(conn).EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
					l.failed.Add(1)
					t.Errorf("a call failed: %v", err)
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
	return l
}

// The client's certificate and the authority of both sides change under load, as an
// operator changes them: first both sides believe both authorities, then only the
// new one. No call fails, and nobody shows what the server does not take.
func TestCertificateAndAuthorityRotateUnderLoad(t *testing.T) {
	for name, replace := range map[string]func(testing.TB, *certFiles, map[string][]byte){
		"written in place": inPlace, "renamed": byRename, "as Kubernetes does": asKubernetes,
	} {
		t.Run(name, func(t *testing.T) {
			first, second := localhost(t), localhost(t)
			d := openDoor(t, first.CA, first.Server)
			server := startBehind(t, d, grpctest.Config{
				Options: []grpc.ServerOption{grpc.MaxConcurrentStreams(4)},
				EmptyCall: func(ctx context.Context) error {
					select { // calls take a little, so that there is more than one connection
					case <-time.After(8 * time.Millisecond):
					case <-ctx.Done():
					}
					return nil
				},
			})
			files := writeFiles(t, first, replace)
			f, err := grpcpool.NewMutualTLSFactoryFromFiles(files.ca, files.cert, files.key, server.Addr(),
				grpcpool.WithReloadInterval(100*time.Millisecond), grpcpool.WithReplaceWithin(time.Second))
			if err != nil {
				t.Fatal(err)
			}
			pool := shared.New(f, 0)
			defer pool.Close()
			load := startLoad(t, pool)
			defer load.stop()
			ctx := testContext(t)
			d.waitUntilAllShow(ctx, t, serialOf(t, first.Client))

			begun := time.Now()
			d.set(t, first.Server, first.CA, second.CA)
			files.put(t, slices.Concat(first.CA.PEM, second.CA.PEM), second.Client)
			d.waitUntilAllShow(ctx, t, serialOf(t, second.Client))
			took := time.Since(begun)

			// The old authority goes: its certificates are refused from now on.
			d.set(t, second.Server, second.CA)
			third := issue(t, second.CA, pki.Request{})
			files.put(t, second.CA.PEM, third)
			d.waitUntilAllShow(ctx, t, serialOf(t, third))

			load.stop()
			t.Logf("%d calls, %d failed; all connections on the first new identity after %v", load.calls.Load(), load.failed.Load(), took)
			if s := pool.Stats(); s.Identity.Serial != serialOf(t, third) || s.Identity.LastError != nil {
				t.Errorf("Stats show the identity %+v", s.Identity)
			}
			d.wantNobodyRefused(t)
		})
	}
}

// inBubble is a pool with a connection to a server in memory, whose client files
// lie in a directory. It must be made inside a bubble.
type inBubble struct {
	l       *pki.Localhost
	door    *door
	files   *certFiles
	factory *grpcpool.Factory
	pool    *shared.Pool
	log     *logBook
}

func newInBubble(t *testing.T) *inBubble {
	t.Helper()
	b := &inBubble{l: localhost(t), log: new(logBook)}
	b.door = openDoor(t, b.l.CA, b.l.Server)
	server := startBehind(t, b.door, grpctest.Config{InMemory: true})
	b.files = writeFiles(t, b.l, asKubernetes)
	f, err := grpcpool.NewMutualTLSFactoryFromFiles(b.files.ca, b.files.cert, b.files.key, server.Target(),
		grpcpool.WithLogger(b.log.logger()), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
	if err != nil {
		t.Fatal(err)
	}
	b.factory, b.pool = f, shared.New(f, 0)
	t.Cleanup(func() { b.pool.Close() })
	b.call(t)
	return b
}

func (b *inBubble) call(t *testing.T) {
	t.Helper()
	if _, err := testpb.NewTestServiceClient(b.pool).EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
		t.Errorf("a call failed: %v", err)
	}
}

// The promise with everything at its default: thirty seconds after the files have
// changed nothing shows the old certificate.
func TestConnectionsAreOnANewCertificateWithinThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		next := issue(t, b.l.CA, pki.Request{CommonName: "next"})
		b.files.put(t, b.l.CA.PEM, next)
		for range 30 {
			b.call(t)
			time.Sleep(time.Second)
		}
		if open := b.door.open(); len(open) != 1 || open[serialOf(t, next)] == 0 {
			t.Errorf("the connections show %v, want only %s", open, serialOf(t, next))
		}
		b.call(t)
		b.door.wantNobodyRefused(t)
	})
}

// A stream that runs on an old connection is left alone, and the connection goes
// when it ends.
func TestAStreamOutlivesTheIdentityItBeganUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := testpb.NewTestServiceClient(b.pool).FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		next := issue(t, b.l.CA, pki.Request{})
		b.files.put(t, b.l.CA.PEM, next)
		for range 60 {
			if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			b.call(t)
			time.Sleep(time.Second)
		}
		first, second := serialOf(t, b.l.Client), serialOf(t, next)
		if open := b.door.open(); open[first] != 1 || open[second] != 1 {
			t.Errorf("with the stream open the connections show %v, want one %s and one %s", open, first, second)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Fatalf("the stream ended with %v", err)
		}
		time.Sleep(time.Second)
		if open := b.door.open(); len(open) != 1 || open[second] != 1 {
			t.Errorf("without the stream the connections show %v, want one %s", open, second)
		}
	})
}

func TestTheIdentityIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		made := time.Now()
		want := grpcpool.IdentityInfo{
			Generation: 1, Subject: "CN=client", Serial: serialOf(t, b.l.Client), Expiry: grpcpool.ExpiryFar,
			NotBefore: leafOf(t, b.l.Client).NotBefore, NotAfter: leafOf(t, b.l.Client).NotAfter,
			LoadedAt: made, CheckedAt: made,
		}
		if got := b.pool.Stats().Identity; got != want {
			t.Errorf("Stats show %+v, want %+v", got, want)
		}
		next := issue(t, b.l.CA, pki.Request{CommonName: "next"})
		b.files.put(t, b.l.CA.PEM, next)
		time.Sleep(12 * time.Second)
		want.Generation, want.Subject, want.Serial = 2, "CN=next", serialOf(t, next)
		want.LoadedAt, want.CheckedAt = made.Add(11*time.Second), made.Add(11*time.Second)
		want.NotBefore, want.NotAfter = leafOf(t, next).NotBefore, leafOf(t, next).NotAfter
		if got := b.factory.Identity(); got != want {
			t.Errorf("Identity is %+v, want %+v", got, want)
		}
	})
}

// What files hold is taken when it has been still for a second.
func TestFilesThatAreStillBeingWrittenAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		other := localhost(t)
		both := slices.Concat(b.l.CA.PEM, other.CA.PEM)
		time.Sleep(9500 * time.Millisecond)
		for range 10 { // a bundle that grows: each state of it looks whole
			both = append(both, newCA(t, "one more").PEM...)
			write(t, b.files.ca, both)
			time.Sleep(600 * time.Millisecond)
			if g := b.factory.Identity().Generation; g != 1 {
				t.Fatalf("generation %d was taken from a file that changes", g)
			}
		}
		time.Sleep(2 * time.Second)
		if g := b.factory.Identity().Generation; g != 2 {
			t.Errorf("generation %d two seconds after the last change, want 2", g)
		}
	})
}

func TestAHalfWrittenPairIsKeptOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		next := issue(t, b.l.CA, pki.Request{CommonName: "next"})
		write(t, b.files.cert, next.CertPEM)
		time.Sleep(time.Minute)
		b.wantOldIdentity(t, "does not match", b.files.key)

		write(t, b.files.key, next.KeyPEM[:len(next.KeyPEM)/2])
		time.Sleep(time.Minute)
		b.wantOldIdentity(t, b.files.key)

		write(t, b.files.key, next.KeyPEM)
		time.Sleep(12 * time.Second)
		if id := b.factory.Identity(); id.Generation != 2 || id.Serial != serialOf(t, next) || id.LastError != nil {
			t.Errorf("with the pair whole: %+v", id)
		}
		b.door.wantNobodyRefused(t)
	})
}

func (b *inBubble) wantOldIdentity(t *testing.T, reasons ...string) {
	t.Helper()
	b.call(t)
	id := b.pool.Stats().Identity
	if id.Generation != 1 || id.Serial != serialOf(t, b.l.Client) {
		t.Errorf("the identity is %+v, want the first still", id)
	}
	wantError(t, id.LastError, append(reasons, "grpcpool: ")...)
}

// A broken file costs nothing but a line in the log each minute, and what puts it
// right is noticed.
func TestABrokenFileKeepsTheOldIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		breakIt func(t *testing.T, b *inBubble)
		reason  string
	}{
		"CA gone":               {func(t *testing.T, b *inBubble) { remove(t, b.files.ca) }, "no such file"},
		"CA without one":        {func(t *testing.T, b *inBubble) { write(t, b.files.ca, b.l.Client.KeyPEM) }, "no certificate"},
		"CA cut off":            {func(t *testing.T, b *inBubble) { write(t, b.files.ca, cutOff(b.l.CA.PEM)) }, "is it whole?"},
		"certificate cut off":   {func(t *testing.T, b *inBubble) { write(t, b.files.cert, cutOff(b.l.Client.CertPEM)) }, "is it whole?"},
		"certificate empty":     {func(t *testing.T, b *inBubble) { write(t, b.files.cert, nil) }, "is empty"},
		"certificate expired":   {func(t *testing.T, b *inBubble) { b.putExpired(t) }, "expired at"},
		"certificate as server": {func(t *testing.T, b *inBubble) { b.files.put(t, b.l.CA.PEM, b.l.Server) }, "not for client authentication"},
		"key gone":              {func(t *testing.T, b *inBubble) { remove(t, b.files.key) }, "no such file"},
		"key garbage":           {func(t *testing.T, b *inBubble) { write(t, b.files.key, []byte("FIXME")) }, "not PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newInBubble(t)
				test.breakIt(t, b)
				time.Sleep(5*time.Minute + 5*time.Second)
				b.wantOldIdentity(t, test.reason, b.files.dir)
				if n := b.log.count("WARN", "cannot be used"); n < 4 || n > 6 {
					t.Errorf("%d warnings in five minutes, want about one each", n)
				}
				next := issue(t, b.l.CA, pki.Request{})
				for path, content := range map[string][]byte{b.files.ca: b.l.CA.PEM, b.files.cert: next.CertPEM, b.files.key: next.KeyPEM} {
					write(t, path, content)
				}
				time.Sleep(12 * time.Second)
				if id := b.factory.Identity(); id.Generation != 2 || id.LastError != nil {
					t.Errorf("with the files in order: %+v", id)
				}
				if b.log.count("INFO", "in order again") != 1 {
					t.Error("the log does not say that the files are in order again")
				}
			})
		})
	}
}

func (b *inBubble) putExpired(t *testing.T) {
	now := time.Now()
	b.files.put(t, b.l.CA.PEM, issue(t, b.l.CA, pki.Request{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}))
}

func cutOff(pem []byte) []byte { return pem[:len(pem)-20] }

// While a channel is open its factory looks after the certificates; with the last
// channel that ends, and there is nothing to close. Close ends it sooner.
func TestAFactoryWatchesWhileAChannelIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		time.Sleep(time.Minute)
		if age := time.Since(b.factory.Identity().CheckedAt); age > 10*time.Second {
			t.Errorf("the files were last read %v ago, with a channel open", age)
		}
		b.pool.Close()
		synctest.Wait()
		closed := time.Now()
		time.Sleep(time.Minute)
		if at := b.factory.Identity().CheckedAt; at.After(closed) {
			t.Errorf("the files were read %v after the last channel was closed", at.Sub(closed))
		}

		// A handshake looks for itself.
		next := issue(t, b.l.CA, pki.Request{})
		b.files.put(t, b.l.CA.PEM, next)
		if err := b.factory.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		conn, err := b.factory.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if open := b.door.open(); open[serialOf(t, next)] != 1 {
			t.Errorf("the connections show %v, want only %s", open, serialOf(t, next))
		}
		for range 2 {
			if err := b.factory.Close(); err != nil {
				t.Error(err)
			}
		}
		closed = time.Now()
		time.Sleep(time.Minute)
		if at := b.factory.Identity().CheckedAt; at.After(closed) {
			t.Errorf("the files were read %v after Close", at.Sub(closed))
		}
	})
}

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
