//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// webServer serves h over HTTP/2 without TLS.
func webServer(t *testing.T, h http.HandlerFunc) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &h2, Handler: h, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(l)
	}()
	t.Cleanup(func() { server.Close(); <-served })
	return l.Addr().String()
}

// page answers with a web page.
func page(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(code)
	w.Write([]byte("<html><head><title>Oops\x1b[2J</title></head><body>a whole page</body></html>"))
}

func TestAWebServerIsNotTakenForAGRPCServer(t *testing.T) {
	for code, advice := range map[int]string{
		200: "check the host and port", 302: "redirects the call", 400: "check the port", 401: "rejected the call", 403: "rejected the call",
		404: "check the host and port", 405: "check the host and port", 429: "limits the rate",
		502: "check the server behind it", 503: "check the server behind it", 504: "check the server behind it",
	} {
		address := webServer(t, func(w http.ResponseWriter, _ *http.Request) { page(w, code) })
		want := fmt.Sprintf("it answers HTTP %d (%s), not gRPC", code, http.StatusText(code))
		for _, args := range [][]string{{"ping", "--count", "1"}, {"bench", "--duration", "100ms"}} {
			got := runLine(t.Context(), append(args, "--plaintext", address)...)
			text := got.stdout + got.stderr
			if got.status != exitFailed || !strings.Contains(text, want) || !strings.Contains(text, advice) || strings.Contains(text, "<") || strings.Contains(text, "\x1b") {
				t.Errorf("%q, want %q and %q: status %d\n%s", args, want, advice, got.status, text)
			}
		}
	}
}

// answering starts a gRPC server that answers every call with a status.
func answering(t *testing.T, st *status.Status) (address string) {
	t.Helper()
	return listening(t, grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return st.Err() })))
}

func listening(t *testing.T, server *grpc.Server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	return l.Addr().String()
}

func TestEveryStatusOfAServerAnswersAPing(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		want := code.String() + ": connection refused\\u001b[2J"
		switch code {
		case codes.Unimplemented:
			want = "no health service"
		case codes.NotFound:
			want = "has no status for the whole server"
		}
		got := runLine(t.Context(), "ping", "--plaintext", "--count", "1", answering(t, status.New(code, "connection\nrefused\x1b[2J")))
		if got.status != exitOK || !strings.Contains(got.stdout, want) || strings.Contains(got.stdout, "start the server") {
			t.Errorf("%v: status %d, want %q\n%s", code, got.status, want, got.stdout)
		}
	}
}

func TestBenchTellsAServersWordsFromItsOwn(t *testing.T) {
	got := runLine(t.Context(), "bench", "--plaintext", answering(t, status.New(codes.Unavailable, "dial tcp: connection refused")))
	if want := "the server answered Unavailable: dial tcp: connection refused\n"; got.status != exitFailed || !strings.HasSuffix(got.stderr, want) {
		t.Errorf("status %d, %q, want %q", got.status, got.stderr, want)
	}
}

// guarded starts a server that requires a token for every method, also for health checks
// and reflection.
func guarded(t *testing.T) string {
	t.Helper()
	check := func(ctx context.Context) error {
		if md, _ := metadata.FromIncomingContext(ctx); len(md["authorization"]) != 1 || md["authorization"][0] != "Bearer user" {
			return status.Error(codes.Unauthenticated, "no token")
		}
		return nil
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := check(ctx); err != nil {
				return nil, err
			}
			return next(ctx, in)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := check(stream.Context()); err != nil {
				return err
			}
			return next(srv, stream)
		}),
	)
	testpb.RegisterTestServiceServer(server, ready{})
	healthpb.RegisterHealthServer(server, ready{})
	reflection.Register(server)
	return listening(t, server)
}

// ready serves, and says that it does not.
type ready struct {
	testpb.UnimplementedTestServiceServer
	healthpb.UnimplementedHealthServer
}

func (ready) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

func (ready) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
}

// front forwards the methods of one service, and answers all others with a web page.
func front(t *testing.T, code int) string {
	t.Helper()
	return webServer(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/grpc.testing.TestService/") {
			page(w, code)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.Write(make([]byte, 5))
		w.Header().Set("Grpc-Status", "0")
	})
}

func TestTheProxyPassesWhatTheServerAnswersWhateverItsHealthCheckSays(t *testing.T) {
	unwell := grpc.NewServer()
	testpb.RegisterTestServiceServer(unwell, ready{})
	healthpb.RegisterHealthServer(unwell, ready{})
	for name, address := range map[string]string{
		"a token for every call":   guarded(t),
		"not serving":              listening(t, unwell),
		"405 for the health check": front(t, 405),
		"403 for the health check": front(t, 403),
		"302 for the health check": front(t, 302),
		"404 for the health check": front(t, 404),
		"503 for the health check": front(t, 503),
	} {
		t.Run(name, func(t *testing.T) {
			socket := "unix://" + t.TempDir() + "/p"
			p := begin(t, nil, "proxy", "--plaintext", "--to", address, "--listen", socket)
			p.await(t, "listening")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer user")
			for _, target := range []string{address, socket} {
				cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					t.Fatal(err)
				}
				defer cc.Close()
				for range 3 {
					if _, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{}); err != nil {
						t.Errorf("to %s: %v", target, err)
					}
				}
			}
			p.end(t)
		})
	}
}
