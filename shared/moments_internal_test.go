package shared

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/scale"
)

// What comes at one moment may be told in any order. These are the orders that were got wrong.

// puppet makes channels that never connect, and says of them what the test wants.
type puppet struct {
	proof atomic.Pointer[time.Time] // LastProof
	fails atomic.Int32              // so many tests fail
	tests atomic.Int32
	tell  func(scale.Event) // tells the pool an event of the latest channel
}

func (f *puppet) NewConnection(ctx context.Context) (*grpc.ClientConn, error) {
	conn, _, err := f.NewInspectedConnection(ctx)
	return conn, err
}

func (f *puppet) NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	f.tell = grpcpool.EventsFromContext(ctx)
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(hang))
	return conn, f, err
}

func (f *puppet) ConnectionOk(context.Context, *grpc.ClientConn) error {
	f.tests.Add(1)
	if f.fails.Add(-1) >= 0 {
		return errors.New("no connection")
	}
	return nil
}

func (*puppet) Snapshot() scale.Channel { return scale.Channel{} }
func (*puppet) RetryNow()               {}
func (*puppet) Supervised() bool        { return true }

func (f *puppet) LastProof() time.Time {
	if at := f.proof.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// The channel tells of its connection, is tested for it, and only then is gRPC told its state:
// the test fails at once.
func TestAConnectionThatGRPCHasNotHeardOfIsTestedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(puppet)
		p := New(f, 0)
		defer p.Close()
		lease, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lease.Return()
		f.fails.Store(1 << 30)
		for range 6 { // the later it is, the longer are the pauses between tests
			time.Sleep(time.Second)
			if _, err := p.Get(t.Context()); err == nil {
				t.Fatal("a channel without a connection was lent")
			}
		}
		synctest.Wait()
		if state := p.current.Load().conn.GetState(); state == connectivity.Ready {
			t.Fatalf("the channel is %v", state)
		}
		f.fails.Store(1)
		now := time.Now()
		f.proof.Store(&now)
		f.tell(scale.Event{Time: now, Kind: EventDialled, Connection: 2})
		time.Sleep(stateLag + time.Millisecond)
		if _, err := p.Get(t.Context()); err != nil {
			t.Errorf("%v after the connection: %v", stateLag, err)
		}
	})
}

// gRPC ends the context of a stream that has ended, perhaps while its caller reads the end.
// What gRPC has told last may be of a stream that an interceptor has given up.
func TestAStreamThatEndsWhileItsCallerReadsCountsAsTheCallerSeesIt(t *testing.T) {
	for name, want := range map[string]codes.Code{"read": codes.OK, "not read": codes.DeadlineExceeded} {
		t.Run(name, func(t *testing.T) {
			f, err := grpcpool.NewFactory("passthrough:///nowhere", insecure.NewCredentials())
			if err != nil {
				t.Fatal(err)
			}
			p := New(f, 0)
			defer p.Close()
			c, _, err := p.leaseUntested(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := &stream{ctx: t.Context(), lease: trackedLease{lease: lease{c: c}}}
			s.outcome.Store(uint32(codes.DeadlineExceeded))
			if name == "read" {
				s.calls.Add(1) // RecvMsg runs
			}
			s.onEnd()
			if name == "read" {
				if n := p.Stats().Calls; len(n) != 0 {
					t.Fatalf("%v was counted while the caller reads", n)
				}
				over, end := true, io.EOF
				s.callReturns(&over, &end)
			}
			if now := p.Stats(); len(now.Calls) != 1 || now.Calls[want] != 1 || now.Leases != 0 {
				t.Errorf("counted %v with %d leases out, want one %v and none", now.Calls, now.Leases, want)
			}
		})
	}
}

// A call ends with its connection while another is being dialled: that is no outage yet. One
// that has waited in vain has met one.
func TestACallThatEndsWithItsConnectionIsNoOutage(t *testing.T) {
	for code, outage := range map[codes.Code]bool{codes.Unavailable: false, codes.DeadlineExceeded: true} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, err := grpcpool.NewFactory("passthrough:///nowhere", insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(hang)))
				if err != nil {
					t.Fatal(err)
				}
				p := New(f, 0)
				defer p.Close()
				p.Connect()
				synctest.Wait()
				c := p.current.Load()
				if state := c.conn.GetState(); state != connectivity.Connecting {
					t.Fatalf("the channel is %v", state)
				}
				if err := c.explain(t.Context(), status.Error(code, "the end"), code); !errors.Is(err, grpcpool.ErrConnectionNotOK) {
					t.Errorf("the call's error: %v", err)
				}
				if err := p.Stats().LastError; outage != (err != nil) {
					t.Errorf("an outage is noted: %v, want %v", err, outage)
				}
			})
		})
	}
}

// hang dials until it is given up.
func hang(ctx context.Context, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
