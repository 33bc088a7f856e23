package answer_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // for a program whose default it is
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/internal/answer"
)

const check = "/grpc.health.v1.Health/Check"

// theirs is a codec that a program has put in the place of gRPC's, by the interface
// that came before CodecV2, as vtprotobuf has them do. All tests here run beside it.
type theirs struct{}

func (theirs) Name() string                    { return "proto" }
func (theirs) Marshal(v any) ([]byte, error)   { return proto.Marshal(v.(proto.Message)) }
func (theirs) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }

func init() { encoding.RegisterCodec(theirs{}) }

// ask makes one call, in both ways, and returns how each says that it ended.
func ask(t *testing.T, address string, opts ...grpc.DialOption) (unary, stream answer.Answer, err error) {
	t.Helper()
	return askWithin(t, 10*time.Second, address, opts...)
}

// askWithin is ask for calls that are given up after patience.
func askWithin(t *testing.T, patience time.Duration, address string, opts ...grpc.DialOption) (unary, stream answer.Answer, err error) {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+address, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var c answer.Call
	err = cc.Invoke(ctx, check, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}, c.Options()...)
	unary = c.Of(err)

	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, streamErr := cc.NewStream(ctx, &grpc.StreamDesc{}, check, answer.Fixed()...)
	if streamErr == nil {
		_ = s.SendMsg(&healthpb.HealthCheckRequest{}) // RecvMsg says why
		streamErr = s.RecvMsg(&healthpb.HealthCheckResponse{})
	}
	return unary, answer.OfStream(s, streamErr), err
}

// health is a server whose health service answers so.
func health(t *testing.T, say func(context.Context) error) string {
	t.Helper()
	return grpcpooltest.NewServer(t, grpcpooltest.WithServerOptions(
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := say(ctx); err != nil {
				return nil, err
			}
			return handler(ctx, request)
		}),
	)).Addr()
}

// web is a server that speaks HTTP/2 and not gRPC.
func web(t *testing.T, code int, contentType string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &h2, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = w.Write([]byte("<h1>a page</h1>"))
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

// raw is a server of package h2test.
func raw(t *testing.T, opts ...h2test.Option) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := h2test.Start(l, opts...)
	t.Cleanup(s.Close)
	return l.Addr().String()
}

func TestEveryStatusOfAServerIsItsAnswer(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			unary, stream, err := ask(t, health(t, func(context.Context) error {
				return status.Error(code, "stream terminated by RST_STREAM, or unexpected HTTP status code received from server: 404 (Not Found)")
			}))
			if status.Code(err) != code || unary.Kind != answer.GRPC || stream.Kind != answer.GRPC {
				t.Errorf("%v: %v and %v, want gRPC's answer of both", err, unary, stream)
			}
		})
	}
}

func TestAnHTTPAnswerIsToldAsSuch(t *testing.T) {
	for _, code := range []int{200, 204, 301, 400, 401, 403, 404, 429, 500, 502, 503, 504} {
		want := answer.Answer{Kind: answer.HTTP, HTTP: code}
		unary, stream, err := ask(t, web(t, code, "text/html"))
		if unary != want || stream != want {
			t.Errorf("%v: %v and %v, want %v", err, unary, stream, want)
		}
	}
	if text := (answer.Answer{Kind: answer.HTTP, HTTP: 404}).String(); text != "it answers HTTP 404 (Not Found), not gRPC" {
		t.Error(text)
	}
}

func TestWhatIsNoAnswerIsNotTakenForOne(t *testing.T) {
	silent := func(context.Context) error { <-t.Context().Done(); return nil }
	for name, test := range map[string]struct {
		address string
		opts    []grpc.DialOption
		want    answer.Kind
	}{
		"too late":             {health(t, silent), nil, answer.None},
		"a service config":     {health(t, silent), []grpc.DialOption{methodConfig(`"timeout":"0.02s"`)}, answer.None},
		"a stream that is cut": {raw(t, h2test.WithFault(h2test.ResetsCalls)), nil, answer.Reset},
		"nothing listening":    {"127.0.0.1:1", nil, answer.Unsent},
		"no stream to be had":  {raw(t, h2test.WithLimit(0)), nil, answer.Unsent},
		"credentials":          {health(t, silent), []grpc.DialOption{grpc.WithPerRPCCredentials(failing{})}, answer.Unsent},
	} {
		t.Run(name, func(t *testing.T) {
			unary, stream, err := askWithin(t, 250*time.Millisecond, test.address, test.opts...)
			if err == nil || unary.Kind != test.want || stream.Kind != test.want {
				t.Errorf("%v: %v and %v, want %v", err, unary, stream, answer.Answer{Kind: test.want})
			}
		})
	}
}

// A GOAWAY's debug data is the peer's, and comes with the loss of the connection.
func TestALostConnectionIsNoAnswer(t *testing.T) {
	unary, stream, err := askWithin(t, 250*time.Millisecond, raw(t, h2test.WithFault(h2test.GoAwayAtOnce)))
	for _, a := range []answer.Answer{unary, stream} {
		if a.Kind != answer.None && a.Kind != answer.Unsent {
			t.Errorf("%v: %v", err, a)
		}
	}
}

func TestTheProgramsDefaultsDoNotChangeOurCalls(t *testing.T) {
	seen := make(chan metadata.MD, 2)
	address := health(t, func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		seen <- md
		return nil
	})
	for name, opt := range map[string]grpc.DialOption{
		"nothing":         grpc.EmptyDialOption{},
		"a codec":         grpc.WithDefaultCallOptions(grpc.ForceCodecV2(words{})),
		"a content type":  grpc.WithDefaultCallOptions(grpc.CallContentSubtype("json")),
		"a compressor":    grpc.WithDefaultCallOptions(grpc.UseCompressor("gzip")),
		"a limit":         grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(0)),
		"wait for ready":  grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		"all in a config": methodConfig(`"waitForReady":true,"maxRequestMessageBytes":0`),
	} {
		t.Run(name, func(t *testing.T) {
			unary, stream, err := ask(t, address, opt)
			if err != nil || unary.Kind != answer.GRPC || stream.Kind != answer.GRPC {
				t.Errorf("%v: %v and %v", err, unary, stream)
			}
			for range 2 {
				if diff := cmp.Diff([]string{"application/grpc"}, (<-seen)["content-type"]); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestOurCallsDoNotWaitForAConnection(t *testing.T) {
	for name, opt := range map[string]grpc.DialOption{
		"by default":        grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		"by service config": methodConfig(`"waitForReady":true`),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ask(t, "127.0.0.1:1", opt)
			if status.Code(err) != codes.Unavailable {
				t.Errorf("%v, want Unavailable", err)
			}
		})
	}
}

func methodConfig(what string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig(`{"methodConfig":[{"name":[{}],` + what + `}]}`)
}

var errNoToken = errors.New("no token to be had")

// failing are credentials that fail in this process.
type failing struct{}

func (failing) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, errNoToken
}

func (failing) RequireTransportSecurity() bool { return false }

var _ credentials.PerRPCCredentials = failing{}

// words is a codec for strings only.
type words struct{}

func (words) Marshal(v any) (mem.BufferSlice, error) {
	text, ok := v.(string)
	if !ok {
		return nil, errors.New("no string")
	}
	return mem.BufferSlice{mem.SliceBuffer(text)}, nil
}

func (words) Unmarshal(mem.BufferSlice, any) error { return errors.New("no string") }

func (words) Name() string { return "words" }
