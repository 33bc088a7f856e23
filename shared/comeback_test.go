package shared_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/internal/jitter"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// returning is one client of a server that goes away and comes back.
type returning struct {
	name string
	link *grpcpooltest.Link
	call func(ctx context.Context) error
}

// refuse is a server that has gone, blackhole a network that has.
func refuse(l *grpcpooltest.Link) {
	l.Refuse()
	l.Reset()
}

func blackhole(l *grpcpooltest.Link) { l.Drop(true, true) }

// outage takes the server away for the given time, and returns how long after that a call
// went through, of calls at the given pace, and how many dials that took.
func (r *returning) outage(t *testing.T, away func(*grpcpooltest.Link), lasts, pace time.Duration) (took time.Duration, dials int64) {
	t.Helper()
	if err := r.call(t.Context()); err != nil {
		t.Errorf("%s: before the outage: %v", r.name, err)
	}
	before := r.link.Dials()
	away(r.link)
	back := time.Now().Add(lasts)
	time.AfterFunc(lasts, r.link.Heal)
	for {
		begun := time.Now()
		err := r.call(t.Context())
		switch {
		case err == nil && !begun.Before(back):
			return time.Since(back), r.link.Dials() - before
		case time.Since(back) > 130*time.Second: // grpc-go's own backoff is shorter
			t.Errorf("%s: no call went through: %v", r.name, err)
			return time.Since(back), r.link.Dials() - before
		}
		time.Sleep(pace) // virtual
	}
}

// returningClients are one of each kind, each with a link of its own to server.
func returningClients(t *testing.T, server *grpcpooltest.Server) []*returning {
	t.Helper()
	link := func() (*grpcpooltest.Link, grpc.DialOption) {
		l := grpcpooltest.NewLink(server.Dial)
		return l, grpc.WithContextDialer(l.Dial)
	}
	channel := func(name string, newClient func(string, ...grpc.DialOption) (*grpc.ClientConn, error)) *returning {
		l, dial := link()
		conn, err := newClient(server.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()), dial)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return &returning{name: name, link: l, call: emptyCall(conn)}
	}
	pool := func(name string, call func(*shared.Pool) func(context.Context) error) *returning {
		l, dial := link()
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(dial))
		if err != nil {
			t.Fatal(err)
		}
		return &returning{name: name, link: l, call: call(newPool(t, f, 0))}
	}
	return []*returning{
		channel("plain", grpc.NewClient),
		channel("scale", scale.NewClient),
		pool("Get", func(p *shared.Pool) func(context.Context) error {
			return func(ctx context.Context) error { return try(ctx, p) }
		}),
		pool("Invoke", func(p *shared.Pool) func(context.Context) error { return emptyCall(p) }),
	}
}

func emptyCall(cc grpc.ClientConnInterface) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{})
		return err
	}
}

// Row 29, for what the pool adds: it is back as soon as its channel is, and dials no more.
// The medians are of random pauses; what is asserted leaves room for chance.
func TestThePoolIsBackAsSoonAsItsChannelAndDialsNoMore(t *testing.T) {
	const rounds = 15
	for name, test := range map[string]struct {
		away   func(*grpcpooltest.Link)
		outage time.Duration
		most   time.Duration // the median that is promised; 0: none is
	}{
		"50 ms":                {refuse, 50 * time.Millisecond, 60 * time.Millisecond},
		"200 ms":               {refuse, 200 * time.Millisecond, 100 * time.Millisecond},
		"1 s":                  {refuse, time.Second, 300 * time.Millisecond},
		"30 s":                 {refuse, 30 * time.Second, 600 * time.Millisecond},
		"a dead network, 5 s":  {blackhole, 5 * time.Second, 0},
		"a dead network, 30 s": {blackhole, 30 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
				median, dials := make(map[string]time.Duration), make(map[string]int64)
				for _, c := range returningClients(t, server) {
					if c.name == "plain" && test.outage > 2*time.Second {
						continue // its backoff is long by then, and in a dead network it waits for TCP
					}
					took := make([]time.Duration, 0, rounds)
					for range rounds {
						one, n := c.outage(t, test.away, test.outage, min(test.outage/10, 20*time.Millisecond))
						took = append(took, one)
						dials[c.name] += n
						time.Sleep(2*time.Second + jitter.UpTo(time.Second)) // virtual
					}
					slices.Sort(took)
					median[c.name] = took[rounds/2]
					t.Logf("%-6s back after %8v, %d dials in %d outages", c.name, median[c.name].Round(time.Millisecond), dials[c.name], rounds)
				}
				for _, name := range []string{"Get", "Invoke"} {
					if mine, bare := median[name], median["scale"]; mine > bare+300*time.Millisecond {
						t.Errorf("%s went through %v after the server was back, on the channel alone %v", name, mine, bare)
					}
					if mine := median[name]; test.most > 0 && mine > test.most+test.most/2 {
						t.Errorf("%s went through %v after the server was back, want %v for most outages", name, mine, test.most)
					}
					if mine, bare := dials[name], dials["scale"]; mine > bare+bare/4+rounds {
						t.Errorf("%s dialled %d times in %d outages, the channel alone %d times", name, mine, rounds, bare)
					}
				}
			})
		})
	}
}
