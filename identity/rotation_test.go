package identity_test

import (
	"context"
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
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
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
// operator changes them: first both sides trust both authorities, then only the
// new one. No call fails, and no client shows a certificate that the server refuses.
func TestCertificateAndAuthorityRotateUnderLoad(t *testing.T) {
	for name, replace := range map[string]func(testing.TB, *certFiles, map[string][]byte){
		"written in place": inPlace, "renamed": byRename, "as Kubernetes does": asKubernetes,
	} {
		t.Run(name, func(t *testing.T) {
			first, second := localhost(t), localhost(t)
			d := openDoor(t, first.CA, first.Server)
			server := startBehind(t, d, []grpcpooltest.Option{
				grpcpooltest.WithServerOptions(grpc.MaxConcurrentStreams(4)),
				grpcpooltest.WithEmptyCall(func(ctx context.Context) error {
					select { // calls take a little, so that there is more than one connection
					case <-time.After(8 * time.Millisecond):
					case <-ctx.Done():
					}
					return nil
				}),
			})
			files := writeFiles(t, first, replace)
			f, err := fromFiles(files, server.Addr(), identity.WithReloadInterval(100*time.Millisecond), identity.WithReplaceWithin(time.Second))
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
			third := issue(t, second.CA, grpcpooltest.CertRequest{})
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
	l       *grpcpooltest.Certs
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
	server := startBehind(t, b.door, []grpcpooltest.Option{grpcpooltest.WithInMemory()})
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

// With the defaults, no connection shows the old certificate thirty seconds after the
// files have changed.
func TestConnectionsAreOnANewCertificateWithinThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		next := issue(t, b.l.CA, grpcpooltest.CertRequest{CommonName: "next"})
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

// A stream on an old connection runs on, and the connection is closed when it ends.
func TestAStreamOutlivesTheIdentityItBeganUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInBubble(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := testpb.NewTestServiceClient(b.pool).FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		next := issue(t, b.l.CA, grpcpooltest.CertRequest{})
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
		want := identity.Info{
			Generation: 1, Subject: "CN=client", Serial: serialOf(t, b.l.Client), Expiry: identity.ExpiryFar,
			NotBefore: leafOf(t, b.l.Client).NotBefore, NotAfter: leafOf(t, b.l.Client).NotAfter,
			LoadedAt: made, CheckedAt: made,
		}
		if got := b.pool.Stats().Identity; got != want {
			t.Errorf("Stats show %+v, want %+v", got, want)
		}
		next := issue(t, b.l.CA, grpcpooltest.CertRequest{CommonName: "next"})
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

// The content of files is taken when it has not changed for a second.
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
		next := issue(t, b.l.CA, grpcpooltest.CertRequest{CommonName: "next"})
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
	wantError(t, id.LastError, append(reasons, "identity: ")...)
}

// A broken file causes a line in the log each minute and no more, and is used again once
// it is correct.
func TestABrokenFileKeepsTheOldIdentity(t *testing.T) {
	for name, test := range map[string]struct {
		breakIt func(t *testing.T, b *inBubble)
		reason  string
	}{
		"CA gone":               {func(t *testing.T, b *inBubble) { remove(t, b.files.ca) }, "no such file"},
		"CA without one":        {func(t *testing.T, b *inBubble) { write(t, b.files.ca, b.l.Client.KeyPEM) }, "no certificate"},
		"CA cut off":            {func(t *testing.T, b *inBubble) { write(t, b.files.ca, cutOff(b.l.CA.PEM)) }, "is the file complete?"},
		"certificate cut off":   {func(t *testing.T, b *inBubble) { write(t, b.files.cert, cutOff(b.l.Client.CertPEM)) }, "is the file complete?"},
		"certificate empty":     {func(t *testing.T, b *inBubble) { write(t, b.files.cert, nil) }, "is empty"},
		"certificate expired":   {func(t *testing.T, b *inBubble) { b.putExpired(t) }, "expired at"},
		"certificate as server": {func(t *testing.T, b *inBubble) { b.files.put(t, b.l.CA.PEM, b.l.Server) }, "not for client authentication"},
		"key gone":              {func(t *testing.T, b *inBubble) { remove(t, b.files.key) }, "no such file"},
		"key garbage":           {func(t *testing.T, b *inBubble) { write(t, b.files.key, []byte("garbage")) }, "not PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newInBubble(t)
				test.breakIt(t, b)
				time.Sleep(5*time.Minute + 5*time.Second)
				b.wantOldIdentity(t, test.reason, b.files.dir)
				if n := b.log.count("WARN", ""); n != 1 || b.log.count("WARN", "reload failed") != 1 {
					t.Errorf("%d warnings in five minutes, want one", n)
				}
				time.Sleep(20 * time.Minute)
				if n := b.log.count("WARN", "reload failed"); n != 3 {
					t.Errorf("%d warnings in 25 minutes, want one every ten minutes, 3", n)
				}
				next := issue(t, b.l.CA, grpcpooltest.CertRequest{})
				for path, content := range map[string][]byte{b.files.ca: b.l.CA.PEM, b.files.cert: next.CertPEM, b.files.key: next.KeyPEM} {
					write(t, path, content)
				}
				time.Sleep(12 * time.Second)
				if id := b.factory.Identity(); id.Generation != 2 || id.LastError != nil {
					t.Errorf("with the files in order: %+v", id)
				}
				if b.log.count("INFO", "recovered") != 1 {
					t.Error("the log does not say that the files are usable again")
				}
			})
		})
	}
}

func (b *inBubble) putExpired(t *testing.T) {
	now := time.Now()
	b.files.put(t, b.l.CA.PEM, issue(t, b.l.CA, grpcpooltest.CertRequest{NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}))
}

func cutOff(pem []byte) []byte { return pem[:len(pem)-20] }

// A factory checks its certificates while one of its channels is open. Nothing has to be
// closed to end that; Close ends it sooner.
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

		// A handshake checks too.
		next := issue(t, b.l.CA, grpcpooltest.CertRequest{})
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
