package shared_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool/shared"
)

func TestAnIdleChannelIsClosedAndTheNextGetOpensAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 5*time.Minute)
		l := get(t, p)
		conn := l.Connection()
		time.Sleep(time.Hour)
		if closed(conn) {
			t.Fatal("closed under a lease")
		}
		l.Return()
		time.Sleep(5*time.Minute - time.Millisecond)
		if closed(conn) {
			t.Fatal("closed too early: the time counts from the last Return")
		}
		time.Sleep(260 * time.Millisecond)
		if !closed(conn) {
			t.Fatal("not closed a quarter of a second after the idle timeout")
		}
		borrow(t, p)
		if s := p.Stats(); s.Dials != 2 || s.IdleClosed != 1 {
			t.Errorf("stats %+v, want two dials and one idle close", s)
		}
	})
}

func TestUseKeepsAChannelOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 2*time.Second)
		for range 100 {
			borrow(t, p)
			time.Sleep(1900 * time.Millisecond)
		}
		f.wantOneDial(t, 99)
	})
}

func TestWithoutAnIdleTimeoutTheChannelStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFactory{}
		p := newPool(t, f, 0)
		borrow(t, p)
		time.Sleep(1000 * time.Hour)
		borrow(t, p)
		f.wantOneDial(t, 1)
	})
}

func TestAnIdleServerSeesItsConnectionClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemory(t, time.Minute)
		borrow(t, p)
		time.Sleep(61 * time.Second)
		borrow(t, p)
		if n := server.Accepted(); n != 2 {
			t.Errorf("%d connections, want a second one after the idle close", n)
		}
	})
}

func TestALeaseThatIsNotReturnedIsReportedWithItsBorrower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		p := newPool(t, &fakeFactory{}, 0,
			shared.WithLeakDetection(time.Minute), shared.WithName("orders"),
			shared.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		borrow(t, p)
		l := get(t, p)
		time.Sleep(59 * time.Second)
		if log.String() != "" {
			t.Fatalf("reported too early: %s", log.String())
		}
		time.Sleep(time.Hour)
		text := log.String()
		for _, part := range []string{"level=WARN", "pool=orders", "TestALeaseThatIsNotReturnedIsReportedWithItsBorrower", "shared_test.get"} {
			if !strings.Contains(text, part) {
				t.Errorf("the report does not say %q: %s", part, text)
			}
		}
		if n := strings.Count(text, "level=WARN"); n != 1 || p.Stats().Leaked != 1 {
			t.Errorf("%d reports, %d counted, want 1 of each", n, p.Stats().Leaked)
		}
		l.Return()
		l.Return()
		if n := p.Stats().Leases; n != 0 {
			t.Errorf("%d leases out", n)
		}
	})
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
