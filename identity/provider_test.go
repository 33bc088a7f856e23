package identity_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime/pprof"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
	"github.com/davidwartell/go-grpcpool/scale"
)

// served is a provider whose source the test fills, and a server in memory that takes its
// certificates.
type served struct {
	l        *pki.Localhost
	door     *door
	server   *grpctest.Server
	source   *memory
	provider *identity.Provider
}

func newServed(t *testing.T, opts ...identity.Option) *served {
	t.Helper()
	s := &served{l: localhost(t)}
	s.door = openDoor(t, s.l.CA, s.l.Server)
	s.server = startBehind(t, s.door, grpctest.Config{InMemory: true})
	s.source = &memory{identity: identityOf(t, s.l.CA, s.l.Client)}
	s.provider = must(identity.FromSource(s.source.source, opts...))
	return s
}

// channel is a channel that is connected.
func (s *served) channel(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn := must(scale.NewClient(s.server.Target(), append(opts, s.provider.DialOption(), grpc.WithContextDialer(s.server.Dial))...))
	call(t, conn)
	return conn
}

func call(t *testing.T, conn grpc.ClientConnInterface) {
	t.Helper()
	if _, err := testpb.NewTestServiceClient(conn).EmptyCall(testContext(t), &testpb.Empty{}); err != nil {
		t.Errorf("a call failed: %v", err)
	}
}

// renew gives the source a new certificate, and returns its serial number.
func (s *served) renew(t *testing.T) (serial string) {
	t.Helper()
	next := issue(t, s.l.CA, pki.Request{CommonName: "next"})
	s.source.set(func(m *memory) { m.identity = identityOf(t, s.l.CA, next) })
	return serialOf(t, next)
}

// asked is how often the source has been asked since the last time.
func (s *served) asked() (n int) {
	s.source.set(func(m *memory) { n, m.asked = m.asked, 0 })
	return n
}

func (s *served) wantOpen(t *testing.T, serial string, n int) {
	t.Helper()
	if open := s.door.open(); len(open) != min(n, 1) || open[serial] != n {
		t.Errorf("the connections show %v, want %d times %s", open, n, serial)
	}
}

// watches is how many goroutines watch for new identities.
func watches(t *testing.T) int {
	t.Helper()
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	return bytes.Count(stacks.Bytes(), []byte("identity.(*Provider).watch("))
}

func wantWatches(t *testing.T, want int) {
	t.Helper()
	synctest.Wait()
	if n := watches(t); n != want {
		t.Errorf("%d goroutines watch for new identities, want %d", n, want)
	}
}

// Bare channels and a factory's, one provider: one goroutine, which asks the source once
// an interval for all of them. Every connection is replaced in time, and without channels
// nothing is left, though nobody has closed the provider.
func TestOneProviderServesManyChannelsWithOneWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const channels = 200
		s := newServed(t)
		wantWatches(t, 0)
		conns := make([]*grpc.ClientConn, 0, channels)
		for range channels - 1 {
			conns = append(conns, s.channel(t, scale.WithProbeInterval(0), grpc.WithIdleTimeout(0)))
		}
		f := must(grpcpool.NewIdentityFactory(s.server.Target(), s.provider, grpcpool.WithDialOptions(grpc.WithContextDialer(s.server.Dial))))
		conns = append(conns, must(f.NewConnection(testContext(t))))
		s.wantOpen(t, serialOf(t, s.l.Client), channels)
		wantWatches(t, 1)

		time.Sleep(time.Second)
		s.asked()
		time.Sleep(time.Minute)
		if n := s.asked(); n != 6 {
			t.Errorf("the source was asked %d times in a minute, want 6", n)
		}

		next := s.renew(t)
		time.Sleep(30 * time.Second)
		s.wantOpen(t, next, channels)
		if shown := s.door.shown(next); shown != channels {
			t.Errorf("%d connections were made under the new certificate, want %d", shown, channels)
		}
		wantWatches(t, 1)

		for _, conn := range conns {
			call(t, conn)
			conn.Close()
		}
		wantWatches(t, 0)
		s.asked()
		time.Sleep(time.Minute)
		if n := s.asked(); n != 0 {
			t.Errorf("without channels the source was asked %d times in a minute", n)
		}
		s.door.wantNobodyRefused(t)
	})
}

// The watch runs while a channel is active, whichever that is. A channel that is idle has
// no connections; its next handshake checks for itself.
func TestTheWatchRunsWhileAChannelIsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed(t)
		first := s.channel(t)
		second := s.channel(t, grpc.WithIdleTimeout(time.Minute))
		wantWatches(t, 1)
		first.Close()
		wantWatches(t, 1)
		time.Sleep(3 * time.Minute) // second goes idle
		wantWatches(t, 0)

		next := s.renew(t)
		call(t, second)
		s.wantOpen(t, next, 1)
		wantWatches(t, 1)
		second.Close()
		wantWatches(t, 0)
	})
}

func TestCloseEndsTheWatchAndChannelsMadeLaterShowTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed(t)
		conn := s.channel(t)
		defer conn.Close()
		wantWatches(t, 1)
		for range 2 {
			if err := s.provider.Close(); err != nil {
				t.Error(err)
			}
			if n := watches(t); n != 0 {
				t.Errorf("%d goroutines watch after Close", n)
			}
		}
		s.asked()
		time.Sleep(time.Minute)
		if n := s.asked(); n != 0 {
			t.Errorf("after Close the source was asked %d times in a minute", n)
		}
		call(t, conn)

		next := s.renew(t)
		later := s.channel(t)
		defer later.Close()
		if n := s.door.shown(next); n != 1 {
			t.Errorf("%d connections show the newest certificate after a dial, want 1", n)
		}
		wantWatches(t, 0)
		time.Sleep(20 * time.Second) // what the handshake has found counts for all
		s.wantOpen(t, next, 2)
	})
}

// A provider is of use without package scale: every handshake shows the newest.
func TestAPlainChannelShowsTheNewestIdentityInEveryHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed(t)
		for name, opt := range map[string]grpc.DialOption{
			"DialOption": s.provider.DialOption(), "Credentials": grpc.WithTransportCredentials(s.provider.Credentials()),
		} {
			for range 2 {
				time.Sleep(2 * time.Second)
				next := s.renew(t)
				conn := must(grpc.NewClient(s.server.Target(), opt, grpc.WithContextDialer(s.server.Dial)))
				call(t, conn)
				if n := s.door.shown(next); n != 1 {
					t.Errorf("%s: %d connections show the newest certificate, want 1", name, n)
				}
				conn.Close()
			}
		}
		wantWatches(t, 0)
		s.door.wantNobodyRefused(t)
	})
}

// The provider's credentials do what its dial option does, in a channel and in a factory.
// Such a factory's Close is none of the provider's.
func TestConnectionsUnderTheCredentialsAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed(t, identity.WithReplaceWithin(5*time.Second))
		bare := must(scale.NewClient(s.server.Target(), grpc.WithTransportCredentials(s.provider.Credentials()), grpc.WithContextDialer(s.server.Dial)))
		defer bare.Close()
		call(t, bare)
		dialer := grpcpool.WithDialOptions(grpc.WithContextDialer(s.server.Dial))
		for _, f := range []*grpcpool.Factory{
			must(grpcpool.NewFactory(s.server.Target(), s.provider.Credentials(), dialer)),
			must(grpcpool.NewIdentityFactory(s.server.Target(), s.provider, dialer)),
		} {
			conn := must(f.NewConnection(testContext(t)))
			defer conn.Close()
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		s.wantOpen(t, serialOf(t, s.l.Client), 3)
		wantWatches(t, 1)
		next := s.renew(t)
		time.Sleep(16 * time.Second)
		s.wantOpen(t, next, 3)
	})
}

func TestAProviderThatWasNotMadeFailsEveryCall(t *testing.T) {
	server := grpctest.Start(t, grpctest.Config{})
	for _, p := range []*identity.Provider{nil, new(identity.Provider)} {
		conn := must(scale.NewClient(server.Addr(), p.DialOption()))
		defer conn.Close()
		_, err := testpb.NewTestServiceClient(conn).EmptyCall(testContext(t), &testpb.Empty{})
		wantError(t, err, "identity: the Provider is nil or empty")
		wantError(t, p.Reload(testContext(t)), "identity: the Provider is nil or empty")
		if err := p.Close(); err != nil || p.Info() != (identity.Info{}) {
			t.Errorf("Close: %v, Info: %+v", err, p.Info())
		}
	}
}

// The certificates of all servers are watched, of whichever channel.
func TestTheEndOfEveryServersCertificateIsSeenComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, log, begin := localhost(t), new(logBook), time.Now()
		provider := must(identity.FromPEM(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, identity.WithLogger(log.logger())))
		for _, life := range []time.Duration{15 * time.Minute, 20 * time.Minute} {
			pair := issue(t, l.CA, pki.Request{Hosts: []string{"localhost"}, NotBefore: begin, NotAfter: begin.Add(life)})
			server := grpctest.Start(t, grpctest.Config{InMemory: true, TLS: serverTLS(t, l.CA, pair)})
			conn := must(scale.NewClient(server.Target(), provider.DialOption(), grpc.WithContextDialer(server.Dial)))
			defer conn.Close()
			call(t, conn)
		}
		time.Sleep(25 * time.Minute)
		for _, text := range []string{"has a third", "has a tenth", "has expired"} {
			if n := log.count("WARN", "the server's certificate "+text); n != 2 {
				t.Errorf("%q was logged %d times, want once for each server", text, n)
			}
		}
	})
}

// Channels come and go at the same time, also before they are connected. In the end there
// is a watch if there is a channel, and none if there is none.
func TestChannelsThatComeAndGoLeaveNoWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServed(t)
		for range 4 {
			var running sync.WaitGroup
			for range 8 {
				running.Go(func() {
					for range 5 {
						conn := must(scale.NewClient(s.server.Target(), s.provider.DialOption(), grpc.WithContextDialer(s.server.Dial)))
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(2))*time.Second)
						_, _ = testpb.NewTestServiceClient(conn).EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
						cancel()
						conn.Close()
					}
				})
			}
			running.Wait()
			wantWatches(t, 0)
			conn := s.channel(t)
			wantWatches(t, 1)
			conn.Close()
			wantWatches(t, 0)
		}
	})
}
