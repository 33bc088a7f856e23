package grpcpool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// healthSaying is a server whose health service is asked by answer first.
func healthSaying(t *testing.T, answer func(context.Context) error) *grpcpooltest.Server {
	t.Helper()
	return grpcpooltest.NewServer(t, grpcpooltest.WithServerOptions(
		grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if info.FullMethod == healthpb.Health_Check_FullMethodName {
				if err := answer(ctx); err != nil {
					return nil, err
				}
			}
			return handler(ctx, request)
		}),
	))
}

// Row 33 of the fault matrix. Whatever status the server answers by, it is alive, and another connection would
// get the same.
func TestAStatusOfTheServerIsASignOfLife(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			server := healthSaying(t, func(context.Context) error { return status.Error(code, "not for you, or not now") })
			f := plainFactory(t, server.Addr())
			conn, err := f.NewConnection(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := f.ConnectionOk(testContext(t), conn); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever the server says about its health, it has said it.
func TestAStatusOfHealthIsASignOfLife(t *testing.T) {
	for s := range healthpb.HealthCheckResponse_ServingStatus_name {
		health := healthpb.HealthCheckResponse_ServingStatus(s)
		t.Run(health.String(), func(t *testing.T) {
			server := grpcpooltest.NewServer(t)
			server.Health.SetServingStatus("", health)
			conn, err := plainFactory(t, server.Addr()).NewConnection(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
}

func TestNoAnswerIsNoSignOfLife(t *testing.T) {
	for name, opt := range map[string]grpc.DialOption{
		"as it comes":                    grpc.EmptyDialOption{},
		"a service config with timeouts": methodConfig(`"timeout":"0.02s"`),
		"one that retries":               methodConfig(`"retryPolicy":{"maxAttempts":5,"initialBackoff":"0.01s","maxBackoff":"0.01s","backoffMultiplier":1,"retryableStatusCodes":["DEADLINE_EXCEEDED"]}`),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			silent := healthSaying(t, func(context.Context) error { <-t.Context().Done(); return nil })
			_, err := plainFactory(t, silent.Addr(), grpcpool.WithDialOptions(opt)).NewConnection(ctx)
			wantNotOK(t, err)
			wantError(t, err, "grpcpool: pinging", "DeadlineExceeded")
		})
	}
}

// A timeout of the program's service config is for its calls. A server that takes
// longer for one answer is not dead.
func TestAServiceConfigsTimeoutDoesNotEndATest(t *testing.T) {
	var asked atomic.Int32
	server := healthSaying(t, func(ctx context.Context) error {
		if asked.Add(1) == 1 {
			<-ctx.Done()
		}
		return nil
	})
	conn, err := plainFactory(t, server.Addr(), grpcpool.WithDialOptions(methodConfig(`"timeout":"0.1s"`))).NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// web answers by HTTP/2 that is not gRPC's.
func web(t *testing.T, code int, page ...string) (address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &h2, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(strings.Join(page, "")))
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String()
}

func TestAProxyWithoutABackendIsNotOK(t *testing.T) {
	for code, want := range map[int]string{
		500: "it answers HTTP 500 (Internal Server Error), not gRPC",
		502: "it answers HTTP 502 (Bad Gateway), not gRPC",
		504: "it answers HTTP 504 (Gateway Timeout), not gRPC",
		503: "it answers HTTP 503 (Service Unavailable), not gRPC",
	} {
		_, err := plainFactory(t, web(t, code)).NewConnection(testContext(t))
		wantNotOK(t, err)
		wantError(t, err, "grpcpool: pinging", want, "unexpected HTTP status code received from server", "check the proxy")
	}
}

// A proxy may lead some methods to a gRPC server and answer the health check itself,
// as nginx does by 404. Calls go well there on a plain channel. So the channel is
// given out, and the test says what it found.
func TestAnHTTPAnswerToTheHealthCheckIsToldAndLeavesTheChannelAlone(t *testing.T) {
	for _, code := range []int{200, 302, 401, 403, 404, 429} {
		f := plainFactory(t, web(t, code))
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = f.ConnectionOk(testContext(t), conn)
		wantNotOK(t, err)
		wantError(t, err, "grpcpool: pinging", fmt.Sprintf("it answers HTTP %d (%s), not gRPC", code, http.StatusText(code)), "check the address")
		if status.Code(err) != codes.Unavailable {
			t.Errorf("the code is %v", status.Code(err))
		}
	}
}

// What a program sets as its default for calls is not for the library's own.
func TestAProgramsDefaultsDoNotChangeATest(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	for name, opt := range programDefaults() {
		t.Run(name, func(t *testing.T) {
			conn, err := plainFactory(t, server.Addr(), grpcpool.WithDialOptions(opt)).NewConnection(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		})
	}
}

// A dial that has failed is told at once, however patient the program's calls are.
func TestAProgramsDefaultsDoNotDelayTheErrorOfADial(t *testing.T) {
	empty := manual.NewBuilderWithScheme("nothing")
	empty.InitialState(resolver.State{})
	for target, test := range map[string]struct {
		want string
		opt  grpcpool.FactoryOption
	}{
		closedPort(t):            {want: "connection refused"},
		"nothing:///addresses":   {want: "zero addresses", opt: grpcpool.WithDialOptions(grpc.WithResolvers(empty))},
		"failing:///resolution":  {want: "no such name", opt: grpcpool.WithDialOptions(grpc.WithResolvers(failingResolver{}))},
		"unix:///there/is/no/it": {want: "no such file"},
	} {
		for name, defaults := range programDefaults() {
			t.Run(test.want+", "+name, func(t *testing.T) {
				opts := []grpcpool.FactoryOption{grpcpool.WithDialOptions(defaults)}
				if test.opt != nil {
					opts = append(opts, test.opt)
				}
				_, err := plainFactory(t, target, opts...).NewConnection(testContext(t))
				wantNotOK(t, err)
				wantError(t, err, test.want)
			})
		}
	}
}

// programDefaults are what programs set for their calls. Those that wait wait for
// longer than testContext.
func programDefaults() map[string]grpc.DialOption {
	return map[string]grpc.DialOption{
		"nothing":                         grpc.EmptyDialOption{},
		"wait for ready":                  grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		"wait for ready by config":        methodConfig(`"waitForReady":true`),
		"retries":                         methodConfig(`"retryPolicy":{"maxAttempts":5,"initialBackoff":"100s","maxBackoff":"100s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}`),
		"a codec of its own":              grpc.WithDefaultCallOptions(grpc.ForceCodecV2(ownCodec{})),
		"a content type of its own":       grpc.WithDefaultCallOptions(grpc.CallContentSubtype("own")),
		"an interceptor that is patient":  grpc.WithUnaryInterceptor(patient),
		"an interceptor that sends twice": grpc.WithChainUnaryInterceptor(twice),
	}
}

// patient has every call wait for a connection.
func patient(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoker(ctx, method, request, reply, cc, append(opts, grpc.WaitForReady(true))...)
}

func twice(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	_ = invoker(ctx, method, request, reply, cc, opts...)
	return invoker(ctx, method, request, reply, cc, opts...)
}

func methodConfig(what string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig(`{"methodConfig":[{"name":[{}],` + what + `}]}`)
}

// ownCodec knows none of the health service's messages.
type ownCodec struct{}

func (ownCodec) Marshal(any) (mem.BufferSlice, error) {
	return nil, status.Error(codes.Internal, "not mine")
}

func (ownCodec) Unmarshal(mem.BufferSlice, any) error {
	return status.Error(codes.Internal, "not mine")
}

func (ownCodec) Name() string { return "own" }

// failingResolver knows no name.
type failingResolver struct{}

func (failingResolver) Scheme() string { return "failing" }

func (failingResolver) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	cc.ReportError(status.Error(codes.Unavailable, "no such name"))
	return failingResolver{}, nil
}

func (failingResolver) ResolveNow(resolver.ResolveNowOptions) {}

func (failingResolver) Close() {}

// nginx completes the handshake of a client without a certificate that it wants, and
// answers every request so. No call would fare better than the test.
func TestAClientCertificateThatIsRefusedOverHTTPFailsTheTest(t *testing.T) {
	address := web(t, 400, "<html><head><title>400 No required SSL certificate was sent</title></head>")
	_, err := plainFactory(t, address).NewConnection(testContext(t))
	if !errors.Is(err, grpcpool.ErrConnectionNotOK) || !strings.Contains(err.Error(), "the server refused the client certificate") || strings.Contains(err.Error(), "<") {
		t.Errorf("%v", err)
	}
}
