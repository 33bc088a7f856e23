package integration_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/shared"
)

// watcher is a caller who watches a load's keys, and who begins anew, from where
// it was, when a watch ends.
type watcher struct {
	t         *testing.T
	pool      *shared.Pool
	explained []string // what a watch's end may say that is not Unavailable
	stop      context.CancelFunc
	running   sync.WaitGroup

	mu      sync.Mutex       // guards what follows
	next    int64            // the revision that has not been seen yet
	watches int              // begun so far
	seen    map[string][]int // the numbers, in the order in which they came, by key
}

func startWatcher(t *testing.T, pool *shared.Pool, explained []string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{t: t, pool: pool, explained: explained, stop: cancel, next: 1, seen: make(map[string][]int)}
	w.running.Go(func() {
		for ctx.Err() == nil {
			w.watch(ctx)
		}
	})
	t.Cleanup(w.end)
	return w
}

// end stops the watcher and waits until it is gone.
func (w *watcher) end() {
	w.stop()
	w.running.Wait()
}

// watch watches until the stream ends. It waits for a connection, so that the
// loop around it does not spin while there is none.
func (w *watcher) watch(ctx context.Context) {
	stream, err := watch(ctx, w.pool, loadPrefix, w.nextRevision(), grpc.WaitForReady(true))
	if err == nil {
		w.mu.Lock()
		w.watches++
		w.mu.Unlock()
		err = w.follow(stream)
	}
	if ctx.Err() == nil && !mayHappen(err, w.explained) {
		w.t.Errorf("a watch ended with %v", err)
	}
}

func (w *watcher) nextRevision() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

func (w *watcher) follow(stream pb.Watch_WatchClient) error {
	for {
		events, err := nextEvents(stream)
		if err != nil {
			return err
		}
		w.mu.Lock()
		for _, e := range events {
			n, err := strconv.Atoi(string(e.GetKv().GetValue()))
			if err != nil {
				w.t.Errorf("the watcher saw %v", e)
			}
			key := string(e.GetKv().GetKey())
			w.seen[key] = append(w.seen[key], n)
			w.next = e.GetKv().GetModRevision() + 1
		}
		w.mu.Unlock()
	}
}

func (w *watcher) began() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watches
}

// last is the number that the watcher saw last under key.
func (w *watcher) last(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := w.seen[key]; len(all) > 0 {
		return all[len(all)-1]
	}
	return 0
}

// check compares what was seen with what etcd has accepted: all of it, once, in
// order. It may have seen more: a put that failed may have been carried out.
func (w *watcher) check(acked map[string][]int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, numbers := range acked {
		seen := make(map[int]bool)
		before := 0
		for _, n := range w.seen[key] {
			if n <= before {
				w.t.Errorf("the watcher saw %d under %s after %d", n, key, before)
			}
			before = n
			seen[n] = true
		}
		for _, n := range numbers {
			if !seen[n] {
				w.t.Errorf("the watcher never saw %d under %s", n, key)
			}
		}
	}
}
