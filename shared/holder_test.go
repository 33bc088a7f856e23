package shared_test

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

func placeOrder(t *testing.T, p *shared.Pool) grpcpool.PoolClientConn {
	t.Helper()
	l, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHoldersSayWhoHoldsLeasesAndForHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &told{}
		p := newPool(t, &fakeFactory{}, 0, shared.WithLeakDetection(time.Minute), shared.WithEvents(log.note))
		if got := p.Holders(); len(got) != 0 {
			t.Errorf("nobody holds a lease, but %v", got)
		}
		old := []grpcpool.PoolClientConn{placeOrder(t, p), placeOrder(t, p)}
		time.Sleep(2 * time.Minute)
		young := get(t, p)
		time.Sleep(time.Second)

		got := p.Holders()
		if len(got) != 2 {
			t.Fatalf("%d holders, want 2: %v", len(got), got)
		}
		orders, others := got[0], got[1]
		if !strings.HasSuffix(orders.Func, "shared_test.placeOrder") || !strings.Contains(orders.String(), "placeOrder (holder_test.go:") ||
			orders.Leases != 2 || orders.Leaked != 2 || orders.Oldest != 2*time.Minute+time.Second {
			t.Errorf("the first holder is %+v", orders)
		}
		if !strings.HasSuffix(others.Func, "shared_test.get") || others.Leases != 1 || others.Leaked != 0 || others.Oldest != time.Second {
			t.Errorf("the second holder is %+v", others)
		}
		if s := p.Stats(); s.Leaked != 2 || s.Settings.LeakAfter != time.Minute {
			t.Errorf("%d leaked, want 2; %+v", s.Leaked, s.Settings)
		}
		leaks := 0
		for _, e := range log.all() {
			if e.Kind == shared.EventLeaked {
				leaks += e.Count
				if !strings.Contains(e.Text, "borrowed by") || !strings.Contains(e.Text, "placeOrder (holder_test.go:") {
					t.Errorf("the leak says %q", e.Text)
				}
				if f, _ := runtime.CallersFrames(e.Stack).Next(); !strings.HasSuffix(f.Function, "shared_test.placeOrder") {
					t.Errorf("the leak's stack begins in %q", f.Function)
				}
			}
		}
		if leaks != 2 {
			t.Errorf("told of %d leaks, want 2", leaks)
		}
		for _, l := range append(old, young) {
			l.Return()
			l.Return()
		}
		if got := p.Holders(); len(got) != 0 {
			t.Errorf("nobody holds a lease, but %v", got)
		}
	})
}
