package proxy_test

import (
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

func TestThereIsRoomForSoManyClients(t *testing.T) {
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) })
	p := newProxy(t, target, func(c *proxy.Config) { c.MaxClients = 2 })
	call := func(cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		_, err := testpb.NewTestServiceClient(cc).UnaryCall(testContext(t), &testpb.SimpleRequest{}, opts...)
		return err
	}
	first, second, third := p.client(t), p.client(t), p.client(t)
	for _, cc := range []*grpc.ClientConn{first, second} {
		if err := call(cc); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(third); status.Code(err) != codes.Unavailable {
		t.Errorf("the third: %v, want UNAVAILABLE", err)
	}
	if got := p.Stats().Clients; got.Open != 2 || got.Refused == 0 {
		t.Errorf("clients: %+v, want 2 open and some refused", got)
	}
	if err := call(first); err != nil {
		t.Errorf("the first, again: %v", err)
	}
	second.Close()
	if err := call(third, grpc.WaitForReady(true)); err != nil {
		t.Errorf("the third, when there is room: %v", err)
	}
}

// A connection counts until it is closed, whether before, during or after the handshake.
func TestClientsAreCountedOutAsTheyLeave(t *testing.T) {
	l, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	config, err := l.CA.ServerConfig(l.Server)
	if err != nil {
		t.Fatal(err)
	}
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) })
	p := newProxy(t, target)
	secure := serve(t, p.Server, "tcp", "127.0.0.1:0", proxy.Access{TLS: credentials.NewTLS(config)}).String()
	silent, err := net.Dial("tcp", secure)
	if err != nil {
		t.Fatal(err)
	}
	garbled, err := net.Dial("tcp", secure)
	if err != nil {
		t.Fatal(err)
	}
	garbled.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	channels := []*grpc.ClientConn{
		p.client(t),
		dial(t, secure, grpc.WithTransportCredentials(clientTLS(t, l.CA, &l.Client))),
		dial(t, secure, grpc.WithTransportCredentials(clientTLS(t, l.CA, nil))), // is refused
	}
	for _, cc := range channels {
		_, _ = testpb.NewTestServiceClient(cc).UnaryCall(testContext(t), &testpb.SimpleRequest{})
	}
	if got := p.Stats().Clients.Open; got < 3 { // the silent one, and the two that are allowed
		t.Errorf("%d clients are open, want 3 or more", got)
	}
	for _, cc := range channels {
		cc.Close()
	}
	silent.Close()
	garbled.Close()
	awaitClients(t, p, 0)
}

func awaitClients(t *testing.T, p *through, want int64) {
	t.Helper()
	isNow(t, fmt.Sprintf("%d clients are open", want), func() bool { return p.Stats().Clients.Open == want })
}
