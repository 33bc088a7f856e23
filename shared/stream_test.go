package shared_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/shared"
)

func wantLeases(t *testing.T, p *shared.Pool, want int) {
	t.Helper()
	synctest.Wait()
	if n := p.Stats().Leases; n != want {
		t.Errorf("%d leases out, want %d", n, want)
	}
}

func TestAStreamHoldsItsLeaseUntilItEnds(t *testing.T) {
	type client = testpb.TestServiceClient
	for name, use := range map[string]func(t *testing.T, p *shared.Pool, c client){
		"read to the end": func(t *testing.T, p *shared.Pool, c client) {
			s, err := c.FullDuplexCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantLeases(t, p, 1)
			if err := errors.Join(s.Send(&testpb.StreamingOutputCallRequest{}), s.CloseSend()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
			wantLeases(t, p, 1)
			if _, err := s.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v", err)
			}
		},
		"client streaming, which ends without an error": func(t *testing.T, p *shared.Pool, c client) {
			s, err := c.StreamingInputCall(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantLeases(t, p, 1)
			if _, err := s.CloseAndRecv(); err != nil {
				t.Errorf("the stream ended with %v", err)
			}
		},
		"abandoned": func(t *testing.T, p *shared.Pool, c client) {
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := c.FullDuplexCall(ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute) // nobody reads it
			wantLeases(t, p, 1)
			cancel()
		},
		"never created": func(t *testing.T, _ *shared.Pool, c client) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := c.FullDuplexCall(ctx); status.Code(err) != codes.Canceled {
				t.Errorf("a stream on a cancelled context: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _ := inMemory(t, time.Minute)
				borrow(t, p)
				use(t, p, testpb.NewTestServiceClient(p))
				wantLeases(t, p, 0)
			})
		})
	}
}

func TestAStreamCutByTheServerGivesItsLeaseBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, server := inMemory(t, time.Minute)
		s, err := testpb.NewTestServiceClient(p).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		server.Stop()
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the stream ended with %v", err)
		}
		wantLeases(t, p, 0)
	})
}

func TestTheIdleCloseSparesAnOpenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, time.Second)
		s, err := testpb.NewTestServiceClient(p).FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Errorf("after ten minutes: %v", err)
		}
		s.CloseSend()
		s.Recv()
	})
}
