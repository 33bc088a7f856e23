package grpcpool_test

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// logBook keeps log records.
type logBook struct {
	mu      sync.Mutex // guards records
	records []slog.Record
}

func (b *logBook) logger() *slog.Logger { return slog.New(b) }

func (*logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler     { return b }
func (b *logBook) WithGroup(string) slog.Handler          { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, r)
	return nil
}

// times are those of the records of a level with a text in them.
func (b *logBook) times(level, text string) []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var times []time.Time
	for _, r := range b.records {
		if r.Level.String() == level && strings.Contains(r.Message, text) {
			times = append(times, r.Time)
		}
	}
	return times
}

func (b *logBook) count(level, text string) int { return len(b.times(level, text)) }

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A certificate is warned of once when a third of its life is left, once when it is
// a tenth, and when it has ended: the client's own and the server's, on a connection
// that stands all the time.
func TestTheEndOfACertificateIsSeenComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := localhost(t)
		l.Client = issue(t, l.CA, pki.Request{CommonName: "short", NotBefore: begin, NotAfter: begin.Add(30 * time.Minute)})
		l.Server = issue(t, l.CA, pki.Request{Hosts: []string{"localhost"}, NotBefore: begin, NotAfter: begin.Add(15 * time.Minute)})
		server := grpctest.Start(t, grpctest.Config{InMemory: true, TLS: serverTLS(t, l.CA, l.Server)})
		log := new(logBook)
		f, err := newFactory(l, server.Target(), grpcpool.WithLogger(log.logger()),
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // does not go idle within grpc-go's 30 minutes
		for _, step := range []struct {
			at   time.Duration
			want grpcpool.Expiry
		}{
			{19*time.Minute + 59*time.Second, grpcpool.ExpiryFar},
			{20*time.Minute + time.Second, grpcpool.ExpiryNear},
			{26*time.Minute + 59*time.Second, grpcpool.ExpiryNear},
			{27*time.Minute + time.Second, grpcpool.ExpiryUrgent},
			{30*time.Minute + time.Second, grpcpool.ExpiryPassed},
			{31 * time.Minute, grpcpool.ExpiryPassed},
		} {
			time.Sleep(time.Until(begin.Add(step.at)))
			if got := f.Identity().Expiry; got != step.want {
				t.Errorf("after %v: %q, want %q", step.at, got, step.want)
			}
		}
		for text, want := range map[string]time.Duration{
			"the client's certificate has a third": 20 * time.Minute,
			"the client's certificate has a tenth": 27 * time.Minute,
			"the client's certificate has expired": 30 * time.Minute,
			"the server's certificate has a third": 10 * time.Minute,
			"the server's certificate has a tenth": 13*time.Minute + 30*time.Second,
			"the server's certificate has expired": 15 * time.Minute,
		} {
			times := log.times("WARN", text)
			if len(times) != 1 {
				t.Errorf("%q was logged %d times, want once", text, len(times))
				continue
			}
			if late := times[0].Sub(begin.Add(want)); late < 0 || late > 11*time.Second {
				t.Errorf("%q was logged after %v, want %v", text, times[0].Sub(begin), want)
			}
		}
	})
}

// Who starts with a certificate that is near its end hears of it at once.
func TestACertificateNearItsEndIsWarnedOfAtOnce(t *testing.T) {
	l, log := localhost(t), new(logBook)
	now := time.Now()
	l.Client = issue(t, l.CA, pki.Request{NotBefore: now.Add(-23 * time.Hour), NotAfter: now.Add(time.Hour)})
	f, err := newFactory(l, "localhost:1", grpcpool.WithLogger(log.logger()))
	if err != nil {
		t.Fatal(err)
	}
	if n := log.count("WARN", "the client's certificate has a tenth"); n != 1 || f.Identity().Expiry != grpcpool.ExpiryUrgent {
		t.Errorf("%d warnings, %q", n, f.Identity().Expiry)
	}
}
