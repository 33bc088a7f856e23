package shared_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// Without a drain timeout Close does not wait for leases. It has nothing to complain of if
// there are none.
func TestCloseWithoutADrainTimeoutFailsOnlyIfLeasesAreOut(t *testing.T) {
	for name, test := range map[string]struct {
		use  func(*testing.T, *shared.Pool)
		want string // in Close's error; "": none
	}{
		"never used": {func(*testing.T, *shared.Pool) {}, ""},
		"used":       {borrowTwice, ""},
		"dialling": {func(t *testing.T, p *shared.Pool) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := p.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Get: %v", err)
			}
		}, ""},
		"one lease":  {func(t *testing.T, p *shared.Pool) { get(t, p) }, "grpcpool: shutting down with 1 lease out: "},
		"two leases": {func(t *testing.T, p *shared.Pool) { get(t, p); get(t, p) }, "grpcpool: shutting down with 2 leases out: "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeFactory{}
				if name == "dialling" {
					f.onDial = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
				}
				p := shared.New(f, 0, shared.WithDrainTimeout(0))
				test.use(t, p)
				begun := time.Now()
				err := p.Close()
				switch {
				case test.want == "" && err != nil:
					t.Errorf("Close: %v", err)
				case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)):
					t.Errorf("Close: %v, want %q", err, test.want)
				}
				if took := time.Since(begun); took != 0 {
					t.Errorf("Close took %v", took)
				}
				for i, conn := range f.conns {
					if !closed(conn) {
						t.Errorf("channel %d is open", i+1)
					}
				}
				if err := p.Close(); err != nil {
					t.Errorf("Close of a closed pool: %v", err)
				}
			})
		})
	}
}

func borrowTwice(t *testing.T, p *shared.Pool) {
	t.Helper()
	borrow(t, p)
	borrow(t, p)
}

// No retry can help against a mistake, so nobody waits for one.
func TestWaitingForReadyDoesNotWaitForMistakesToGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &fakeFactory{}, 0, shared.WithWaitForReady(), shared.WithTestTimeout(0))
		wantMisuse(t, p, "WithTestTimeout(0s)")
		begun := time.Now()
		err := p.Invoke(t.Context(), testpb.TestService_EmptyCall_FullMethodName, &testpb.Empty{}, &testpb.Empty{})
		_, streamErr := p.NewStream(t.Context(), &grpc.StreamDesc{}, testpb.TestService_FullDuplexCall_FullMethodName)
		for _, err := range []error{err, streamErr} {
			if !errors.Is(err, grpcpool.ErrConnectionNotOK) {
				t.Errorf("%v is not ErrConnectionNotOK", err)
			}
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("the calls took %v", took)
		}
	})
}
