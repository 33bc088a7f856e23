package integration_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/shared"
)

// recoversWithin is the promise: with demand, an outage during which dials were refused
// ends for the callers within half the time that it lasted, or a second, whichever is
// less. The shortest pause between two dials is 50 ms, and a tenth of a second is for a
// busy machine.
func recoversWithin(outage time.Duration) time.Duration {
	return min(time.Second, max(50*time.Millisecond, outage/2)) + 100*time.Millisecond
}

// restartable is a server with etcd's interface that can go and come back. Its
// clients come to the same address.
type restartable interface {
	Kill()
	Start()
}

func TestEtcdIsStoppedAndStartedUnderLoad(t *testing.T) {
	certs := localhost(t)
	t.Run("gRPC on a port of its own", func(t *testing.T) {
		etcd := startEtcd(t, certs, grpcOnly)
		testRestartUnderLoad(t, certs, etcd.addr, etcd, nil)
	})
	t.Run("gRPC and HTTP on one port", func(t *testing.T) {
		// etcd's default. Its gRPC server is then a handler in net/http's server,
		// which answers the calls that are cut off with 200 and without trailers.
		// grpc-go (gRPC over HTTP/2, "HTTP to gRPC status") has no better code
		// for that, and the pool has no business to change it.
		etcd := startEtcd(t, certs)
		testRestartUnderLoad(t, certs, etcd.addr, etcd, []string{
			"code = Unknown desc = unexpected HTTP status code received from server: 200 (OK); malformed header: missing HTTP content-type",
			"code = Internal desc = server closed the stream without sending trailers",
		})
	})
}

// testRestartUnderLoad takes etcd away and brings it back while many callers put
// and get and one watches. Calls may fail with the code Unavailable, or with an
// error that contains one of those explained.
func testRestartUnderLoad(t *testing.T, certs *grpcpooltest.Certs, addr string, etcd restartable, explained []string) {
	t.Helper()
	pool := newPool(t, mutualTLS(t, certs, addr))
	start := time.Now()
	l := startLoad(t, pool, explained)
	w := startWatcher(t, pool, explained)
	awaitGood(t, l, start, 300)
	eventually(t, "the watcher watches", func() bool { return w.began() == 1 })
	if n, report := l.failures(); n > 0 {
		t.Fatalf("before the outage %d calls failed:%s", n, report)
	}

	for i, o := range []struct {
		name string
		over func() bool // whether the server may come back
	}{
		{"an outage that the pool knows of", func() bool { return pool.Stats().State == shared.StateFailing }},
		{"a restart as fast as can be", func() bool { return true }},
	} {
		going := time.Now() // etcd takes seconds to stop, and refuses dials meanwhile
		etcd.Kill()
		gone := time.Now()
		eventually(t, o.name, o.over)
		back := awaitReturn(t, certs, addr)
		etcd.Start()
		server := <-back
		awaitGood(t, l, gone, 300)
		_, recovered := l.goodSince(gone)
		took, lasted := recovered.Sub(server.answers), server.answers.Sub(going)
		t.Logf("%s, which lasted %v: the first good call came %v after the first plain TLS handshake; a new channel's took %v",
			o.name, lasted, took, server.newChannel)
		if most := recoversWithin(lasted); took > most+2*server.newChannel {
			t.Errorf("%s: recovery took %v, want at most %v, and %v for twice what a new channel took meanwhile",
				o.name, took, most, 2*server.newChannel)
		}
		eventually(t, "the watcher watches again", func() bool { return w.began() > i+1 })
	}

	l.stop()
	for key, numbers := range l.acked {
		eventually(t, "the watcher has seen what was accepted last", func() bool {
			return w.last(key) >= numbers[len(numbers)-1]
		})
	}
	w.end()
	w.check(l.acked)
	awaitNoLeases(t, pool)
	n, report := l.failures()
	all, _ := l.goodSince(start)
	t.Logf("%d calls went well, %d failed, %d watches; %+v%s", all, n, w.began(), pool.Stats(), report)
}

// awaitGood waits until so many calls that were begun after the given time have
// gone well.
func awaitGood(t *testing.T, l *load, since time.Time, want int) {
	t.Helper()
	eventually(t, "enough calls have gone well", func() bool {
		n, _ := l.goodSince(since)
		return n >= want
	})
}

// serverBack is what somebody without a pool sees of a server's return.
type serverBack struct {
	answers    time.Time     // when a plain TLS handshake succeeded
	newChannel time.Duration // from then until a new channel's first answer: how busy machine and server are
}

// awaitReturn begins to wait for the server.
func awaitReturn(t *testing.T, certs *grpcpooltest.Certs, addr string) <-chan serverBack {
	t.Helper()
	client, factory := clientTLS(t, certs), mutualTLS(t, certs, addr)
	ctx := within(t, time.Minute)
	seen := make(chan serverBack, 1)
	go func() {
		defer close(seen)
		if err := realserver.AwaitHandshake(ctx, addr, client); err != nil {
			t.Error(err)
			return
		}
		answers := time.Now()
		conn, err := factory.NewConnection(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := get(ctx, conn, "key"); err != nil {
			t.Error(err)
		}
		seen <- serverBack{answers, time.Since(answers)}
	}()
	return seen
}

func clientTLS(t *testing.T, certs *grpcpooltest.Certs) *tls.Config {
	t.Helper()
	cfg, err := realserver.ClientTLS(certs)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
