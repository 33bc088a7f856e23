package integration_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/shared"
)

const (
	workers    = 32
	pace       = 50 * time.Millisecond // a worker begins a round no more often
	loadPrefix = "load/"               // begins the keys of a load
)

// load is workers who put and get on one pool, by turns on the pool itself and on
// a lease of it. Each puts rising numbers under a key of its own.
type load struct {
	t         *testing.T
	pool      *shared.Pool
	explained []string // what failures may say that are not Unavailable
	stopped   chan struct{}
	running   sync.WaitGroup

	mu     sync.Mutex       // guards what follows
	good   []call           // the calls that went well
	failed map[string]int   // how often a call failed, by what its error said
	acked  map[string][]int // the numbers that etcd has accepted, by key
}

type call struct{ begun, ended time.Time }

// startLoad begins a load that goes on until stop is called.
func startLoad(t *testing.T, pool *shared.Pool, explained []string) *load {
	t.Helper()
	l := &load{
		t: t, pool: pool, explained: explained, stopped: make(chan struct{}),
		failed: make(map[string]int), acked: make(map[string][]int),
	}
	for i := range workers {
		l.running.Go(func() { l.work(loadPrefix + strconv.Itoa(i)) })
	}
	t.Cleanup(l.stop)
	return l
}

// stop ends the load and waits for its calls.
func (l *load) stop() {
	l.mu.Lock()
	select {
	case <-l.stopped:
	default:
		close(l.stopped)
	}
	l.mu.Unlock()
	l.running.Wait()
}

func (l *load) work(key string) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	acked := 0
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-l.stopped:
			return
		}
		if l.do(n%2 == 0, func(ctx context.Context, cc grpc.ClientConnInterface) error {
			return put(ctx, cc, key, strconv.Itoa(n))
		}) {
			acked = n
			l.noteAcked(key, n)
		}
		var value string
		if l.do(n%2 != 0, func(ctx context.Context, cc grpc.ClientConnInterface) (err error) {
			value, err = get(ctx, cc, key)
			return err
		}) {
			// A put that failed may have been carried out all the same.
			if got, _ := strconv.Atoi(value); got < acked || got > n {
				l.t.Errorf("%s is %q, after etcd accepted %d and before anybody put %d", key, value, acked, n+1)
			}
		}
	}
}

// do makes one call, on a lease or on the pool itself, and reports whether it
// went well.
func (l *load) do(onLease bool, rpc func(context.Context, grpc.ClientConnInterface) error) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.t.Context()), soon) // stop waits for it
	defer cancel()
	begun := time.Now()
	var err error
	if onLease {
		err = onALease(ctx, l.pool, rpc)
	} else {
		err = rpc(ctx, l.pool)
	}
	ended := time.Now()
	if err != nil && !mayHappen(err, l.explained) {
		l.t.Errorf("a call failed after %v: %v", ended.Sub(begun), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed[err.Error()]++
		return false
	}
	l.good = append(l.good, call{begun, ended})
	return true
}

// mayHappen reports whether an outage may end an RPC with err.
func mayHappen(err error, explained []string) bool {
	return status.Code(err) == codes.Unavailable ||
		slices.ContainsFunc(explained, func(text string) bool { return strings.Contains(err.Error(), text) })
}

func onALease(ctx context.Context, pool *shared.Pool, rpc func(context.Context, grpc.ClientConnInterface) error) error {
	conn, err := pool.Get(ctx)
	if err != nil {
		return err
	}
	defer conn.Return()
	return rpc(ctx, conn.Connection())
}

func (l *load) noteAcked(key string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[key] = append(l.acked[key], n)
}

// goodSince counts the good calls that were begun at or after the given time, and
// says when the first of them had its answer.
func (l *load) goodSince(since time.Time) (n int, first time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.good {
		if c.begun.Before(since) {
			continue
		}
		if n == 0 || c.ended.Before(first) {
			first = c.ended
		}
		n++
	}
	return n, first
}

// failures is how many calls have failed, and a line for each different error.
func (l *load) failures() (n int, report string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines strings.Builder
	for text, times := range l.failed {
		n += times
		fmt.Fprintf(&lines, "\n%6d x %s", times, text)
	}
	return n, lines.String()
}
