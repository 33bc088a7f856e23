package proxy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// upstream holds the pool that calls go to. It can be replaced.
type upstream struct {
	current atomic.Pointer[shared.Pool]

	mu     sync.Mutex // guards what follows; held while a pool is replaced
	closed bool
	old    sync.WaitGroup // pools that drain
}

// newStream begins a call on the current pool.
func (u *upstream) newStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	for {
		pool := u.current.Load()
		stream, err := pool.NewStream(ctx, desc, method, opts...)
		if err != nil && errors.Is(err, grpcpool.ErrClosed) && u.current.Load() != pool {
			continue // it was replaced since it was loaded
		}
		return stream, err
	}
}

// replace makes pool the current one. The old one closes after its last call.
func (u *upstream) replace(pool *shared.Pool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return errClosed
	}
	if old := u.current.Swap(pool); old != nil {
		u.old.Go(func() { _ = old.Shutdown(context.Background()) }) // it only fails when its context ends
	}
	return nil
}

// close closes all pools. No calls may be running.
func (u *upstream) close() error {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	err := u.current.Load().Close()
	u.old.Wait()
	return err
}

var errClosed = errors.New("proxy: the proxy is shut down")
