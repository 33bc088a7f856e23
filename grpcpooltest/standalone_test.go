package grpcpooltest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

func newStandalone(t *testing.T) *grpcpooltest.Standalone {
	t.Helper()
	server := grpcpooltest.NewStandalone()
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func benchmarkClient(t *testing.T, server *grpcpooltest.Standalone) testpb.BenchmarkServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(server.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return testpb.NewBenchmarkServiceClient(conn)
}

func TestWhatTheServerSeesIsCounted(t *testing.T) {
	server := newStandalone(t)
	client := benchmarkClient(t, server)
	body := strings.Repeat("x", 1000)
	for range 3 {
		answer, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: []byte(body)}})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(answer.GetPayload().GetBody()); got != body {
			t.Fatalf("the answer has %d bytes, want the %d that were sent", len(got), len(body))
		}
	}
	if err := server.Stop(); err != nil { // the last answer has been counted then
		t.Fatal(err)
	}
	got := server.Counts()
	if got.Opened != 1 || got.MessageBytes < 6000 || got.WireBytes != got.MessageBytes+6*5 {
		t.Errorf("%+v, want one connection, six messages of about 1000 bytes, and 5 bytes more each on the wire", got)
	}
}

func TestAServerComesBackOnItsAddress(t *testing.T) {
	server := newStandalone(t)
	address := server.Addr()
	client := benchmarkClient(t, server)
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Errorf("stopping it again: %v", err)
	}
	if err := server.WaitOpen(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a call to the stopped server: %v, want Unavailable", err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if server.Addr() != address {
		t.Errorf("it is at %s now, want %s", server.Addr(), address)
	}
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	if err := server.WaitOpen(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if got := server.Counts(); got.Opened != 2 {
		t.Errorf("%d connections opened, want 2", got.Opened)
	}
}

func TestAWaitForConnectionsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := newStandalone(t).WaitOpen(ctx, 1)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for 1 open connections, there are 0") {
		t.Errorf("got %v", err)
	}
}

func TestAServerMayBeStoppedBeforeItHasBegunToServe(t *testing.T) {
	for range 200 {
		server := grpcpooltest.NewStandalone()
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}
