package scale_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/scale"
)

// PickError says what a call would, and waits for nothing.
func TestPickErrorIsWhatACallEndsWith(t *testing.T) {
	failing := manual.NewBuilderWithScheme("failing")
	for target, opt := range map[string]grpc.DialOption{
		"passthrough:///127.0.0.1:1": grpc.EmptyDialOption{},
		"failing:///name":            grpc.WithResolvers(failing),
	} {
		t.Run(target, func(t *testing.T) {
			observer := new(scale.Observer)
			if err := observer.PickError(t.Context(), healthpb.Health_Check_FullMethodName); err != nil {
				t.Errorf("before there is a channel: %v", err)
			}
			cc, err := scale.NewClient(target, opt, scale.WithObserver(observer), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			cc.Connect()
			if target == "failing:///name" {
				failing.CC().ReportError(errors.New("no such name"))
			}
			for state := cc.GetState(); state != connectivity.TransientFailure; state = cc.GetState() {
				if !cc.WaitForStateChange(context.Background(), state) {
					t.Fatal("the wait ended")
				}
			}
			_, err = healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if picked := observer.PickError(t.Context(), healthpb.Health_Check_FullMethodName); picked == nil || picked.Error() != status.Convert(err).Message() {
				t.Errorf("PickError: %v, a call: %v", picked, err)
			}
		})
	}
}
