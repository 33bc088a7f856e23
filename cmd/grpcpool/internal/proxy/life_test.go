package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/shared"
)

// isNow waits for what has no event: what a counter or the file system shows.
func isNow(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not so: %s", what)
		}
	}
}

func hold(release <-chan struct{}) func(testpb.TestService_FullDuplexCallServer) error {
	return func(s testpb.TestService_FullDuplexCallServer) error {
		s.SendHeader(nil)
		select {
		case <-release:
		case <-s.Context().Done():
		}
		return nil
	}
}

func TestCallsBeyondTheLimitAreRefusedAndSaidSo(t *testing.T) {
	release := make(chan struct{})
	client := script(t, hold(release), func(c *proxy.Config) { c.MaxStreams = 3 })
	for range 3 {
		s, err := client.FullDuplexCall(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Header(); err != nil {
			t.Fatal(err)
		}
		defer s.Recv()
	}
	_, err := client.UnaryCall(testContext(t), &testpb.SimpleRequest{})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "too many concurrent calls (limit 3)") {
		t.Errorf("a fourth call: %v", err)
	}
	close(release)
}

func TestCallsAreCountedByTheirEnd(t *testing.T) {
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) })
	p := newProxy(t, target)
	client := testpb.NewTestServiceClient(p.client(t))
	for range 3 {
		if _, err := client.UnaryCall(testContext(t), &testpb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.EmptyCall(testContext(t), &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	isNow(t, "all calls have ended", func() bool { return p.Stats().Active == 0 })
	if diff := cmp.Diff(map[string]int64{"OK": 3, "Unimplemented": 1}, p.Stats().Ended); diff != "" {
		t.Error(diff)
	}
	var text strings.Builder
	if err := p.WriteMetrics(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"grpcpool_proxy_calls_total{code=\"OK\"} 3\n", "grpcpool_proxy_calls_total{code=\"Unimplemented\"} 1\n",
		"grpcpool_proxy_active 0\n", "grpcpool_proxy_connections 1\n", "# TYPE grpcpool_proxy_refused_total counter\n",
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("there is no %q in:\n%s", line, text.String())
		}
	}
}

func TestAMessageBeyondTheLimitEndsItsCall(t *testing.T) {
	limit := func(c *proxy.Config) { c.MaxMessage = 10_000 }
	client := script(t, func(s testpb.TestService_FullDuplexCallServer) error {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		return s.Send(&testpb.StreamingOutputCallResponse{Payload: payload(int(m.GetResponseParameters()[0].GetSize()))})
	}, limit)
	for name, test := range map[string]struct {
		request, answer int
		want            codes.Code
	}{
		"within":           {9000, 9000, codes.OK},
		"a large request":  {11_000, 10, codes.ResourceExhausted},
		"a large response": {10, 11_000, codes.ResourceExhausted},
	} {
		s, err := client.FullDuplexCall(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		s.Send(&testpb.StreamingOutputCallRequest{
			Payload:            payload(test.request),
			ResponseParameters: []*testpb.ResponseParameters{{Size: int32(test.answer)}},
		})
		if _, err = s.Recv(); status.Code(err) != test.want {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		s.CloseSend()
		s.Recv()
	}
}

func TestShutdownWaitsForCallsAndTakesNoMore(t *testing.T) {
	release := make(chan struct{})
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, scripted{full: hold(release)}) })
	p := newProxy(t, target)
	client := testpb.NewTestServiceClient(p.client(t))
	stream, err := client.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Shutdown(testContext(t)) }()
	isNow(t, "the socket is gone", func() bool {
		c, err := net.Dial("unix", p.path)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-done:
		t.Fatalf("shut down under a call: %v", err)
	default:
	}
	close(release)
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the call under way ended with %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownEndsWithItsContextAndSaysHowManyCallsItCut(t *testing.T) {
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, scripted{full: hold(nil)}) })
	p, err := proxy.New(proxy.Config{Upstream: upstreamTo(target)})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, p, "tcp", "127.0.0.1:0", proxy.Access{Token: goodToken})
	cc := dial(t, addr.String(), grpc.WithPerRPCCredentials(tokenCreds{}))
	stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "calls were running (1)") {
		t.Errorf("shut down with %v", err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
}

type tokenCreds struct{}

func (tokenCreds) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"proxy-authorization": "Bearer " + goodToken}, nil
}
func (tokenCreds) RequireTransportSecurity() bool { return false }

func TestReloadMovesNewCallsAndLetsOldOnesEnd(t *testing.T) {
	var current atomic.Value
	release := make(chan struct{})
	started := func(name string) string {
		return backend(t, func(s *grpc.Server) {
			testpb.RegisterTestServiceServer(s, scripted{full: func(st testpb.TestService_FullDuplexCallServer) error {
				st.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(name)}})
				return hold(release)(st)
			}})
		})
	}
	first, second := started("first"), started("second")
	current.Store(first)
	p := newProxy(t, first, func(c *proxy.Config) {
		c.Upstream = func() (*shared.Pool, error) { return upstreamTo(current.Load().(string))() }
	})
	client := testpb.NewTestServiceClient(p.client(t))
	begin := func(want string) testpb.TestService_FullDuplexCallClient {
		s, err := client.FullDuplexCall(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if err != nil || string(m.GetPayload().GetBody()) != want {
			t.Fatalf("got %q, %v, want %q", m.GetPayload().GetBody(), err, want)
		}
		return s
	}
	old := begin("first")
	current.Store(second)
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	young := begin("second")
	close(release)
	for _, s := range []testpb.TestService_FullDuplexCallClient{old, young} {
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("a call ended with %v", err)
		}
	}
}

func TestCallsSurviveReloadsUnderLoad(t *testing.T) {
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) })
	p := newProxy(t, target)
	client := testpb.NewTestServiceClient(p.client(t))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, err := client.UnaryCall(testContext(t), &testpb.SimpleRequest{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if err := p.Reload(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func TestAServerThatIsNotThereIsExplained(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	client := testpb.NewTestServiceClient(newProxy(t, l.Addr().String()).client(t))
	_, err = client.UnaryCall(testContext(t), &testpb.SimpleRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
}

func TestHealthOfTheProxyAndOfTheServer(t *testing.T) {
	h := health.NewServer()
	h.SetServingStatus("theirs", healthpb.HealthCheckResponse_NOT_SERVING)
	target := backend(t, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, h) })
	p := newProxy(t, target, func(c *proxy.Config) { c.HealthService = "proxy" })
	client := healthpb.NewHealthClient(p.client(t))
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"proxy":  healthpb.HealthCheckResponse_SERVING,
		"":       healthpb.HealthCheckResponse_SERVING,
		"theirs": healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		answer, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || answer.GetStatus() != want {
			t.Errorf("%q: %v, %v; want %v", service, answer, err, want)
		}
	}
	if _, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{Service: "nobody's"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	watch, err := client.Watch(testContext(t), &healthpb.HealthCheckRequest{Service: "proxy"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatal(m, err)
	}
	if err := p.Shutdown(testContext(t)); err != nil {
		t.Error(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Error(m, err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("the watch ended with %v", err)
	}
}
