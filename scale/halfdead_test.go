package scale_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// pushes sends on a stream all the time.
type pushes struct {
	testpb.UnimplementedTestServiceServer
}

func (pushes) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	for {
		select {
		case <-s.Context().Done():
			return nil
		case <-time.After(100 * time.Millisecond):
			if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
	}
}

// What this side sends is lost, while the server goes on sending. A question with a
// timeout of its own ends with a status, which is nobody's answer.
func TestATimeoutWithinProbeWithIsNoAnswer(t *testing.T) {
	impatient := scale.WithProbe(func(ctx context.Context, cc grpc.ClientConnInterface) error {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	})
	for name, probe := range map[string]grpc.DialOption{"the health service": grpc.EmptyDialOption{}, "WithProbe": impatient} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newInMemory()
				server := grpc.NewServer()
				testpb.RegisterTestServiceServer(server, pushes{})
				go func() { _ = server.Serve(network) }()
				t.Cleanup(server.Stop)
				link := grpcpooltest.NewLink(network.dial)
				c := newChannel(t, "passthrough:///memory", grpc.WithContextDialer(link.Dial), grpc.WithIdleTimeout(0), probe)
				s, err := c.stub.FullDuplexCall(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					for err == nil {
						_, err = s.Recv()
					}
				}()
				elapse(2 * time.Second)
				link.Drop(true, false)
				begun := time.Now()
				<-ended
				if took := time.Since(begun); took > 4*time.Second {
					t.Errorf("the stream ended after %v", took)
				}
				link.Heal()
			})
		})
	}
}
