package shared_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/shared"
)

// wantMisuse fails unless every way to a lease names the mistake, at once, and without
// a call of the factory.
func wantMisuse(t *testing.T, p *shared.Pool, mistake string) {
	t.Helper()
	desc := &grpc.StreamDesc{ServerStreams: true}
	for way, call := range map[string]func(...grpc.CallOption) error{
		"Get": func(...grpc.CallOption) error { _, err := p.Get(t.Context()); return err },
		"Invoke": func(opts ...grpc.CallOption) error {
			return p.Invoke(t.Context(), testpb.TestService_EmptyCall_FullMethodName, &testpb.Empty{}, &testpb.Empty{}, opts...)
		},
		"NewStream": func(opts ...grpc.CallOption) error {
			_, err := p.NewStream(t.Context(), desc, testpb.TestService_StreamingOutputCall_FullMethodName, opts...)
			return err
		},
	} {
		for _, wait := range []bool{false, true} {
			start := time.Now()
			err := call(grpc.WaitForReady(wait))
			if !errors.Is(err, grpcpool.ErrConnectionNotOK) || status.Code(err) != codes.FailedPrecondition || time.Since(start) != 0 {
				t.Fatalf("%s fails after %v with %v (code %v)", way, time.Since(start), err, status.Code(err))
			}
			if text := err.Error(); !strings.HasPrefix(text, "grpcpool: shared.New: ") || !strings.Contains(text, mistake) || strings.Contains(text, "\n") {
				t.Errorf("%s: %q does not say %q", way, text, mistake)
			}
			if st, _ := status.FromError(err); !strings.Contains(st.Message(), mistake) {
				t.Errorf("%s: the status %q does not say %q", way, st.Message(), mistake)
			}
		}
	}
	s := p.Stats()
	if s.State != shared.StateFailing || s.LastError == nil || s.Dials != 0 || s.Leases != 0 || s.Waiting != 0 || s.TimedOut != 0 || len(p.Holders()) != 0 {
		t.Errorf("Stats: %+v", s)
	}
}

// ownFactory is a program's factory, with the methods of ours.
type ownFactory struct{ *grpcpool.Factory }

func TestAMistakeInTheArgumentsOfNewIsNamedByEveryCall(t *testing.T) {
	for _, test := range []struct {
		mistake string
		factory grpcpool.ConnectionFactory
		opt     shared.Option
	}{
		{"nil ConnectionFactory: pass one", nil, shared.WithName("orders")},
		{"nil ConnectionFactory: pass one", (*grpcpool.Factory)(nil), shared.WithName("orders")},
		{"nil ConnectionFactory: pass one", (*ownFactory)(nil), shared.WithName("orders")},
		{"option 1 of 1 is nil: leave it out", &fakeFactory{}, nil},
		{"WithLogger(nil): leave", &fakeFactory{}, shared.WithLogger(nil)},
		{"WithTracer(nil): leave", &fakeFactory{}, shared.WithTracer(nil)},
		{"WithEvents(nil): leave", &fakeFactory{}, shared.WithEvents(nil)},
		{"WithHooks(nil): leave", &fakeFactory{}, shared.WithHooks(nil)},
		{"WithDialTimeout(0s): must be above 0; leave the option out for the default, 20s", &fakeFactory{}, shared.WithDialTimeout(0)},
		{"WithDialTimeout(-1s): must be above 0", &fakeFactory{}, shared.WithDialTimeout(-time.Second)},
		{"WithTestTimeout(0s): must be above 0; leave the option out for the default, 1s", &fakeFactory{}, shared.WithTestTimeout(0)},
		{"WithTestTimeout(-1ns): must be above 0", &fakeFactory{}, shared.WithTestTimeout(-1)},
		{"WithTestInterval(0s): must be above 0; leave the option out for the default, 1s", &fakeFactory{}, shared.WithTestInterval(0)},
		{"WithTestInterval(-1m0s): must be above 0", &fakeFactory{}, shared.WithTestInterval(-time.Minute)},
		{"WithDrainTimeout(-1ns): must not be negative; 0 means that Close does not wait for leases", &fakeFactory{}, shared.WithDrainTimeout(-1)},
		{"WithLeakDetection(-1s): must not be negative; 0 means that leak detection is off", &fakeFactory{}, shared.WithLeakDetection(-time.Second)},
	} {
		t.Run(test.mistake, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := shared.New(test.factory, time.Minute, test.opt)
				wantMisuse(t, p, test.mistake)
				ended, cancel := context.WithCancel(t.Context())
				cancel()
				if err := p.Shutdown(ended); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("Shutdown: %v", err)
				}
				for range 2 {
					if err := p.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				}
				if _, err := p.Get(t.Context()); !errors.Is(err, grpcpool.ErrClosed) || p.Stats().State != shared.StateClosed {
					t.Errorf("Get after Close: %v", err)
				}
				if f, ok := test.factory.(*fakeFactory); ok {
					if dials, tests := f.seen(); dials != 0 || tests != 0 {
						t.Errorf("the factory was called %d times", dials+tests)
					}
				}
			})
		})
	}
}

func TestAllMistakesAreNamedTogetherAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		events := &told{}
		p := shared.New(nil, 0, shared.WithDialTimeout(-time.Second), nil, shared.WithName("orders"),
			shared.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), shared.WithEvents(events.note), shared.WithTestInterval(0))
		for _, mistake := range []string{"nil ConnectionFactory", "WithDialTimeout(-1s)", "option 2 of 6 is nil", "WithTestInterval(0s)"} {
			wantMisuse(t, p, mistake)
		}
		if s := p.Stats().Settings; s.DialTimeout != 20*time.Second || s.TestInterval != time.Second {
			t.Errorf("the settings are %+v, want the defaults", s)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		line := strings.TrimSpace(log.String())
		for _, part := range []string{"level=ERROR", `msg="grpcpool: the pool cannot be used"`, "pool=orders", "nil ConnectionFactory", "WithTestInterval(0s)"} {
			if !strings.Contains(line, part) {
				t.Errorf("the log does not have %q: %s", part, line)
			}
		}
		if strings.Count(line, "\n") != 0 {
			t.Errorf("the log has more than one line:\n%s", line)
		}
		if got := events.story(); got != "shut_down" {
			t.Errorf("the events are %q", got)
		}
	})
}

func TestArgumentsAtTheEndOfTheirRangeAreNoMistakes(t *testing.T) {
	none := func(*shared.Pool) shared.Hooks { return shared.Hooks{} }
	for name, opt := range map[string]shared.Option{
		"no name":              shared.WithName(""),
		"the least timeout":    shared.WithDialTimeout(1),
		"the least test":       shared.WithTestTimeout(1),
		"the least interval":   shared.WithTestInterval(1),
		"no drain":             shared.WithDrainTimeout(0),
		"no leak detection":    shared.WithLeakDetection(0),
		"hooks that are nil":   shared.WithHooks(none),
		"a discarding logger":  shared.WithLogger(slog.New(slog.DiscardHandler)),
		"only Hooks.Event":     shared.WithHooks(func(*shared.Pool) shared.Hooks { return shared.Hooks{Event: func(shared.Event) {}} }),
		"only Hooks.Waited":    shared.WithHooks(func(*shared.Pool) shared.Hooks { return shared.Hooks{Waited: func(time.Duration, error) {}} }),
		"only Hooks.Used":      shared.WithHooks(func(*shared.Pool) shared.Hooks { return shared.Hooks{Used: func(time.Duration) {}} }),
		"wait for ready":       shared.WithWaitForReady(),
		"a very long interval": shared.WithTestInterval(1<<63 - 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, idle := range []time.Duration{-time.Second, 0, 1, time.Minute} {
					p := newPool(t, &fakeFactory{}, idle, opt)
					borrow(t, p)
					time.Sleep(time.Second)
					borrow(t, p)
					if err := p.Stats().LastError; err != nil {
						t.Errorf("idle timeout %v: %v", idle, err)
					}
				}
			})
		})
	}
}
