package load_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
	alphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type server struct {
	testpb.UnimplementedTestServiceServer

	got chan *testpb.SimpleRequest // holds one
}

func (s server) UnaryCall(_ context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	select {
	case s.got <- in:
	default:
	}
	if code := in.GetResponseStatus().GetCode(); code != 0 {
		return nil, status.Error(codes.Code(code), "as asked")
	}
	return &testpb.SimpleResponse{}, nil
}

func start(t *testing.T, register ...func(*grpc.Server)) (*grpc.ClientConn, server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, s := grpc.NewServer(), server{got: make(chan *testpb.SimpleRequest, 1)}
	testpb.RegisterTestServiceServer(g, s)
	for _, r := range register {
		r(g)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	cc, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close(); g.Stop(); <-served })
	return cc, s
}

func TestAMethodIsFoundByReflectionAndItsMessageFilledFromJSON(t *testing.T) {
	cc, s := start(t, func(g *grpc.Server) { reflection.Register(g) })
	m, err := load.Find(t.Context(), cc, "grpc.testing.TestService/UnaryCall", `{"responseSize": 7, "payload": {"body": "AAH/"}}`)
	if err != nil {
		t.Fatal(err)
	}
	want := &testpb.SimpleRequest{ResponseSize: 7, Payload: &testpb.Payload{Body: []byte{0, 1, 255}}}
	ways := []load.Way{{Name: "it", Conn: func(context.Context) (grpc.ClientConnInterface, func(), error) { return cc, func() {}, nil }}}
	results, err := load.Run(t.Context(), m, ways, load.Config{Callers: 3, Duration: 50 * time.Millisecond, Timeout: 10 * time.Second, Turns: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-s.got; !proto.Equal(got, want) {
		t.Errorf("the server got %v, want %v", got, want)
	}
	if r := results[0]; r.Calls == 0 || r.Failed != 0 || r.P50 <= 0 || r.P999 < r.P50 || r.CallsPerSecond <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestEitherVersionOfReflectionIsEnough(t *testing.T) {
	for name, register := range map[string]func(*grpc.Server){
		"both": func(g *grpc.Server) { reflection.Register(g) },
		"v1":   func(g *grpc.Server) { reflection.RegisterV1(g) },
		"v1alpha": func(g *grpc.Server) {
			alphapb.RegisterServerReflectionServer(g, reflection.NewServer(reflection.ServerOptions{Services: g}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cc, _ := start(t, register)
			m, err := load.Find(t.Context(), cc, "grpc.testing.TestService/UnaryCall", `{"responseSize": 7}`)
			if err != nil || len(m.Request) == 0 {
				t.Errorf("%+v, %v", m, err)
			}
			if _, err := load.Find(t.Context(), cc, "no.Such/Method", ""); err == nil || !strings.Contains(err.Error(), "not found") {
				t.Errorf("an unknown service: %v", err)
			}
		})
	}
}

func TestWhatCannotBeCalledIsExplained(t *testing.T) {
	with, _ := start(t, func(g *grpc.Server) { reflection.Register(g) })
	without, _ := start(t)
	for _, test := range []struct {
		cc           *grpc.ClientConn
		method, data string
		want         string
	}{
		{with, "UnaryCall", "", "it must be package.Service/Method"},
		{with, "no.Such/Method", "", "not found"},
		{with, "grpc.testing.TestService/Nothing", "", `no method "Nothing"; it has: EmptyCall, UnaryCall`},
		{with, "grpc.testing.TestService/FullDuplexCall", "", "streaming method"},
		{with, "grpc.testing.TestService/UnaryCall", `{"nothing": 1}`, "--data is not a valid grpc.testing.SimpleRequest"},
		{with, "grpc.testing.TestService/UnaryCall", `{`, "--data is not a valid grpc.testing.SimpleRequest"},
		{without, "grpc.testing.TestService/UnaryCall", "", "has no reflection service (load: the server's reflection service: rpc error: code = Unimplemented"},
	} {
		if _, err := load.Find(t.Context(), test.cc, test.method, test.data); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.method, test.data, err, test.want)
		}
	}
}

func TestCallsThatFailAreCountedByReason(t *testing.T) {
	cc, _ := start(t)
	request, err := proto.Marshal(&testpb.SimpleRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// The first call of a turn must succeed; the others request an error.
	bad, err := proto.Marshal(&testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.Aborted)}})
	if err != nil {
		t.Fatal(err)
	}
	m := load.Method{Path: "/grpc.testing.TestService/UnaryCall", Request: request}
	ways := []load.Way{{Name: "it", Conn: func(context.Context) (grpc.ClientConnInterface, func(), error) {
		return &afterFirst{ClientConnInterface: cc, request: bad}, func() {}, nil
	}}}
	results, err := load.Run(t.Context(), m, ways, load.Config{Callers: 1, Duration: 20 * time.Millisecond, Timeout: 10 * time.Second, Turns: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r.Failed == 0 || r.Failed != r.Calls || r.Errors["Aborted: as asked"] != int(r.Failed) {
		t.Errorf("%+v", r)
	}
}

// afterFirst sends another request from the second call on. It supports one caller.
type afterFirst struct {
	grpc.ClientConnInterface

	called  bool
	request []byte
}

func (a *afterFirst) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if a.called {
		args = a.request
	}
	a.called = true
	return a.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

func TestARunEndsWithItsContext(t *testing.T) {
	cc, _ := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	ways := []load.Way{{Name: "it", Conn: func(context.Context) (grpc.ClientConnInterface, func(), error) { return cc, func() {}, nil }}}
	m := load.Method{Path: "/grpc.testing.TestService/UnaryCall"}
	_, err := load.Run(ctx, m, ways, load.Config{Callers: 2, Duration: time.Hour, Timeout: time.Second, Turns: 1}, func(load.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
