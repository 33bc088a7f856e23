package scale

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// A machine that slept has a monotonic clock that stood still, and proofs that look recent.

// sleeps has the machine sleep for an hour, as far as connection n can tell.
func (st *stage) sleeps(n int) {
	c := st.connection(n)
	c.sub.mu.Lock()
	defer c.sub.mu.Unlock()
	w := c.window.Load()
	w.wall = w.wall.Add(-time.Hour)
}

func TestAfterTheMachineSleptACallWaitsUntilTheConnectionIsProved(t *testing.T) {
	for name, tc := range map[string]struct{ quietFor, until time.Duration }{
		"a connection in use, after a look":   {0, 400 * time.Millisecond},
		"a quiet connection, before a look":   {3 * time.Second, 0},
		"a quiet connection, after a look":    {3 * time.Second, time.Second},
		"a connection that is quiet for long": {20 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, `{}`, func(st *stage) {
				var answers atomic.Bool
				answers.Store(true)
				st.policy.channel.ask = func(ctx context.Context, _ grpc.ClientConnInterface) error {
					if answers.Load() {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}
				first := st.conns[0]
				first.connects(100)
				st.begin().end()
				time.Sleep(tc.quietFor)
				first.deaf.Store(true)
				answers.Store(false)
				st.sleeps(0)
				time.Sleep(tc.until)
				waits := st.begin()
				if n := waits.on(); n != -1 {
					t.Errorf("the call is on %d, and nothing has answered since", n)
				}
				answers.Store(true)
				first.deaf.Store(false)
				time.Sleep(4 * time.Second) // at most one probe is lost
				if n := waits.on(); n == -1 {
					t.Errorf("the call still waits")
				}
			})
		})
	}
}
