package scale_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relayed has relay run for each connection to the address that it returns, with another
// one to addr. At the end of the test ctx ends, and both connections are closed; they are
// also closed when relay returns.
func relayed(t *testing.T, addr string, relay func(ctx context.Context, client, server net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		end()
		running.Wait()
	})
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				_ = client.Close()
				continue
			}
			closeBoth := func() { _, _ = client.Close(), server.Close() }
			running.Go(func() {
				defer closeBoth()
				defer context.AfterFunc(ctx, closeBoth)()
				relay(ctx, client, server)
			})
		}
	})
	return l.Addr().String()
}

// bothWays runs the two directions of a relay. When one has ended so has the other, as that
// closes what it writes to.
func bothWays(up, down func()) {
	var other sync.WaitGroup
	other.Go(down)
	up()
	other.Wait()
}

// pass copies until from ends, and closes to.
func pass(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	_, _ = io.Copy(to, from)
}

// passSlowly is pass at the given rate, and not at all while stopped, which may be nil.
func passSlowly(ctx context.Context, to, from net.Conn, bytesPerSecond int, stopped *atomic.Bool) {
	defer func() { _ = to.Close() }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		if stopped != nil && stopped.Load() {
			continue
		}
		if _, err := io.CopyN(to, from, int64(bytesPerSecond/100)); err != nil {
			return
		}
	}
}
