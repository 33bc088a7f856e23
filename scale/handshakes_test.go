package scale_test

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// Callers that do not wait are told in time, and the one handshake goes on.
func TestAHandshakeThatIsLateKeepsItsPlaceWhileCallersAreTold(t *testing.T) {
	const slow = 9 * time.Second
	for _, policy := range []string{"pick_first", "round_robin"} {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				serverTLS, clientTLS := certificates(t)
				clientTLS.ServerName = "localhost"
				serverTLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					time.Sleep(slow)
					return nil, nil //nolint:nilnil // crypto/tls goes on with the config that it has
				}
				network, s := strictInMemory(t, h2test.WithTLS(serverTLS))
				c := network.channel(t, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS)),
					grpc.WithDefaultServiceConfig(`{"loadBalancingPolicy": "`+policy+`"}`))
				begun := time.Now()
				for _, within := range []time.Duration{3 * time.Second, 0} { // the second is told at once
					asked := time.Now()
					_, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{})
					if took := time.Since(asked); took > within || status.Code(err) != codes.Unavailable ||
						!containsAll(err.Error(), "did not finish the handshake", "still waiting for it") {
						t.Errorf("a call was told after %v: %v", took, err)
					}
				}
				if state := c.GetState(); state != connectivity.TransientFailure {
					t.Errorf("the channel is %v", state)
				}
				if _, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil || time.Since(begun) > slow+time.Second {
					t.Errorf("a call that waits ended after %v: %v", time.Since(begun), err)
				}
				if n := s.Counts().Connections; n != 1 {
					t.Errorf("%d connections, want the one that kept its place", n)
				}
				if sub := c.observer.Snapshot().Subchannels[0]; sub.State != connectivity.Ready || sub.Dialling != 0 {
					t.Errorf("afterwards: %+v", sub)
				}
			})
		})
	}
}

// What a server that never sends SETTINGS costs while calls wait: a second dial after ten
// seconds, a third after thirty, and never more than two connections.
func TestBesideALateHandshakeDialsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithFault(h2test.Silent))
		c := network.channel(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := c.stub.EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
			done <- err
		}()
		most := int64(0)
		for second := range 60 {
			elapse(time.Second)
			most = max(most, s.Counts().Open)
			switch n := s.Counts().Connections; {
			case second+1 <= 9 && n != 1, second+1 >= 13 && n < 2, second+1 <= 28 && n > 2, n > 5:
				t.Errorf("%d connections after %d s", n, second+1)
			}
		}
		if most > 2 {
			t.Errorf("%d connections were open at once, want 2 at most", most)
		}
		s.SetFault(h2test.NoFault)
		back := time.Now()
		if err := <-done; err != nil || time.Since(back) > 23*time.Second {
			t.Errorf("%v after the server came to: %v", time.Since(back), err)
		}
		cancel()
	})
}

// Who knows that the server is back need not wait for that.
func TestRetryNowDialsBesideALateHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithFault(h2test.Silent))
		c := network.channel(t)
		c.Connect()
		elapse(3 * time.Second)
		s.SetFault(h2test.NoFault)
		c.observer.RetryNow()
		elapse(time.Millisecond)
		if state := c.GetState(); state != connectivity.Ready {
			t.Errorf("the channel is %v", state)
		}
		if n := s.Counts(); n.Connections != 2 || n.Open != 1 {
			t.Errorf("the server saw %+v", n)
		}
	})
}

// Without calls nothing is dialled beside a late handshake.
func TestWithoutDemandALateHandshakeStaysAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithFault(h2test.Silent))
		c := network.channel(t)
		c.Connect()
		elapse(3 * time.Second)
		if state := c.GetState(); state != connectivity.TransientFailure {
			t.Errorf("after 3 s the channel is %v", state)
		}
		elapse(16 * time.Second)
		if n := s.Counts().Connections; n != 1 {
			t.Errorf("%d connections in 19 s", n)
		}
	})
}

// A SubConn with several addresses, as older policies have it: the next address is tried
// as soon as the first is late.
func TestBesideALateHandshakeAnotherAddressComesFirst(t *testing.T) {
	silent, good := startStrict(t, h2test.WithFault(h2test.Silent)), startServer(t, serverConfig{})
	r := manual.NewBuilderWithScheme("several")
	r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: silent.Addr().String()}, {Addr: good.addr}}})
	c := newChannel(t, "several:///x", grpc.WithResolvers(r), grpc.WithDefaultServiceConfig(testSingle))
	begun := time.Now()
	mustHammer(t, c.stub, 1, 1)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the call took %v, want what it takes until a handshake is late", took)
	}
	eventually(t, "the connection that is not needed is closed", func() bool { return silent.Counts().Open == 0 })
	if n := silent.Counts().Connections; n != 1 {
		t.Errorf("%d connections to the silent server", n)
	}
}

// blocked are credentials that fill the connection until the peer's kernel takes no more,
// so that the last bytes stay unacknowledged, as on a path that is dead in one direction.
type blocked struct {
	credentials.TransportCredentials

	handshakes *atomic.Int64
}

func (b blocked) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	b.handshakes.Add(1)
	for {
		if _, err := raw.Write(make([]byte, 1<<20)); err != nil {
			return nil, nil, err
		}
	}
}

func (b blocked) Clone() credentials.TransportCredentials { return b }

// Where it is known that the server has not acknowledged what was sent, there is no place
// to be kept, and the dial is given up.
func TestAHandshakeThatTheServerHasNotAcknowledgedIsGivenUp(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this system does not tell what the peer has acknowledged")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it accepts nobody; the kernel does
	creds := blocked{insecure.NewCredentials(), new(atomic.Int64)}
	c := newChannel(t, l.Addr().String(), grpc.WithTransportCredentials(creds))
	_, err = c.stub.EmptyCall(testContext(t), &testpb.Empty{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "did not finish the handshake") || strings.Contains(err.Error(), "still waiting") {
		t.Errorf("the call ended with %v", err)
	}
	if sub := c.observer.Snapshot().Subchannels[0]; sub.Failed != 1 {
		t.Errorf("the dial has not failed: %+v", sub)
	}
}

// Ten dials that were begun together and are late tell no more of the server than one: the
// callers of the last are told as soon as those of the first.
func TestHandshakesThatAreLateTogetherCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t, h2test.WithLimit(1))
		link := grpcpooltest.NewLink(network.dial)
		c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(link.Dial))
		mustHammer(t, c.stub, 1, 1)
		elapse(time.Minute)
		s.SetFault(h2test.Silent)
		link.Reset()
		before := s.Counts().Connections
		begun := time.Now()
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() {
				_, _ = c.stub.EmptyCall(t.Context(), &testpb.Empty{})
			})
		}
		calls.Wait()
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("the last call was told after %v", took)
		}
		if n := s.Counts().Connections - before; n != 10 {
			t.Errorf("%d connections, want one for each call", n)
		}
	})
}

// A server that was slow once, and then hangs an hour later: callers are told as soon as if
// it had never been slow.
func TestASlowHandshakeDoesNotCountForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serverTLS, clientTLS := certificates(t)
		clientTLS.ServerName = "localhost"
		var slow atomic.Int64
		slow.Store(int64(9 * time.Second))
		serverTLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			time.Sleep(time.Duration(slow.Load()))
			return nil, nil //nolint:nilnil // crypto/tls goes on with the config that it has
		}
		network, _ := strictInMemory(t, h2test.WithTLS(serverTLS))
		link := grpcpooltest.NewLink(network.dial)
		c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(link.Dial), grpc.WithIdleTimeout(0),
			grpc.WithTransportCredentials(credentials.NewTLS(clientTLS)))
		mustWait(t, c)
		elapse(time.Hour)
		slow.Store(int64(time.Minute))
		link.Reset()
		synctest.Wait()
		begun := time.Now()
		_, err := c.stub.EmptyCall(t.Context(), &testpb.Empty{})
		if took := time.Since(begun); took > 3*time.Second || status.Code(err) != codes.Unavailable {
			t.Errorf("a call was told after %v: %v", took, err)
		}
	})
}
