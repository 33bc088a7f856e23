package proxy_test

import (
	"errors"
	"io"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// Parts that usually arrive together are sent together (see patience.go). The proxy must
// not wait for parts that do not. Each call finds the method's shape as the call before
// left it.
func TestNoMessageWaitsForTheNext(t *testing.T) {
	got := make(chan struct{})
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		for {
			if _, err := s.Recv(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			got <- struct{}{}
			if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
	})
	for _, messages := range []int{1, 1, 3, 0, 1, 2} {
		stream, err := client.FullDuplexCall(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for range messages { // the server receives each before the next is sent
			if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			<-got
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		stream.CloseSend()
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after %d messages: %v", messages, err)
		}
	}
}

// The server sends first; the client has sent nothing yet.
func TestAServerMaySpeakFirst(t *testing.T) {
	release := make(chan struct{})
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		for range 2 {
			if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
			<-release
		}
		_, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	for range 3 {
		stream, err := client.FullDuplexCall(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			release <- struct{}{}
		}
		stream.CloseSend()
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
}
