//go:build unix

package integration_test

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/integration/internal/relay"
)

// Fault 14 of the fault matrix. At a reload nginx's old worker says goodbye to its
// connections (GOAWAY) and finishes what it has begun.
func TestNoCallFailsWhenNginxReloads(t *testing.T) {
	const callers, reloads = 16, 5
	certs := localhost(t)
	nginx := realserver.StartNginx(t, realserver.Config{Certs: certs, MaxStreams: limit, Backend: startBackend(t, nil)})
	counted := relay.Start(t, nginx.Addr)
	pool := newPool(t, mutualTLS(t, certs, counted.Addr))

	var calls atomic.Int64
	var stopped atomic.Bool
	var running sync.WaitGroup
	ctx := within(t, time.Minute)
	for range callers {
		running.Go(func() {
			for !stopped.Load() {
				if err := checkHealth(ctx, pool); err != nil {
					t.Errorf("a call failed: %v", err)
				}
				calls.Add(1)
			}
		})
	}
	defer running.Wait()
	defer stopped.Store(true)
	for range reloads {
		before := calls.Load()
		eventually(t, "calls are made", func() bool { return calls.Load() >= before+10*callers })
		opened := counted.Accepted()
		nginx.Signal(syscall.SIGHUP)
		eventually(t, "the pool's channel has another connection", func() bool { return counted.Accepted() > opened })
	}
	t.Logf("%d calls over %d reloads and %d connections", calls.Load(), reloads, counted.Accepted())
}
