package scale_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

var round = flag.Int("round", 0, "peers take turns: which round this is")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}

// stub is a server's client over one peer, and what it costs.
type stub struct {
	testpb.TestServiceClient

	close func()
}

// peer is a way of reaching a server.
type peer struct {
	name string
	dial func(b *testing.B, target string, opts ...grpc.DialOption) stub
}

// inTurn are the peers in another order each round.
func inTurn(peers ...peer) []peer {
	k := *round % len(peers)
	return append(append([]peer(nil), peers[k:]...), peers[:k]...)
}

func plain(b *testing.B, target string, opts ...grpc.DialOption) stub {
	b.Helper()
	return one(b, grpc.NewClient, target, opts)
}

// scaled is a channel that scales, with options of its own.
func scaled(own ...grpc.DialOption) func(*testing.B, string, ...grpc.DialOption) stub {
	return func(b *testing.B, target string, opts ...grpc.DialOption) stub {
		b.Helper()
		return one(b, scale.NewClient, target, append(opts, own...))
	}
}

func one(b *testing.B, dial func(string, ...grpc.DialOption) (*grpc.ClientConn, error), target string, opts []grpc.DialOption) stub {
	b.Helper()
	cc, err := dial(target, opts...)
	if err != nil {
		b.Fatal(err)
	}
	return stub{testpb.NewTestServiceClient(cc), func() { cc.Close() }}
}

// several is n plain channels; a call goes to the one with the fewest under way.
func several(n int) func(*testing.B, string, ...grpc.DialOption) stub {
	return func(b *testing.B, target string, opts ...grpc.DialOption) stub {
		b.Helper()
		all := make(leastLoaded, n)
		for i := range all {
			cc, err := grpc.NewClient(target, opts...)
			if err != nil {
				b.Fatal(err)
			}
			all[i] = &counted{ClientConn: cc}
		}
		return stub{testpb.NewTestServiceClient(all), func() {
			for _, c := range all {
				c.Close()
			}
		}}
	}
}

type counted struct {
	*grpc.ClientConn

	calls atomic.Int64
}

// leastLoaded makes unary calls on the least loaded of its channels.
type leastLoaded []*counted

func (all leastLoaded) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	least := all[0]
	for _, c := range all[1:] {
		if c.calls.Load() < least.calls.Load() {
			least = c
		}
	}
	least.calls.Add(1)
	defer least.calls.Add(-1)
	return least.Invoke(ctx, method, args, reply, opts...)
}

func (all leastLoaded) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return all[0].NewStream(ctx, desc, method, opts...)
}

// server answers EmptyCall after a delay, and StreamingOutputCall with messages of
// a size without end.
type server struct {
	testpb.UnimplementedTestServiceServer

	target   string
	creds    credentials.TransportCredentials // the client's
	accepted atomic.Int64
	delay    func() time.Duration // nil: none
}

func start(b *testing.B, delay func() time.Duration, secure bool, opts ...grpc.ServerOption) *server {
	b.Helper()
	s := &server{delay: delay, creds: insecure.NewCredentials()}
	if secure {
		serverCreds, clientCreds := mutualTLS(b)
		s.creds = clientCreds
		opts = append(opts, grpc.Creds(serverCreds))
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s.target = "passthrough:///" + lis.Addr().String()
	g := grpc.NewServer(opts...)
	testpb.RegisterTestServiceServer(g, s)
	go g.Serve(countingListener{lis, &s.accepted})
	b.Cleanup(g.Stop)
	return s
}

func (s *server) dial(b *testing.B, p peer, opts ...grpc.DialOption) stub {
	b.Helper()
	s.accepted.Store(0)
	return p.dial(b, s.target, append(opts, grpc.WithTransportCredentials(s.creds))...)
}

func (s *server) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.delay != nil {
		timer := time.NewTimer(s.delay())
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &testpb.Empty{}, nil
}

func (s *server) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	body := make([]byte, r.GetResponseParameters()[0].GetSize())
	message := &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: body}}
	for {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
}

type countingListener struct {
	net.Listener

	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return conn, err
}

func mutualTLS(b *testing.B) (serverCreds, clientCreds credentials.TransportCredentials) {
	b.Helper()
	l, err := grpcpooltest.NewCerts()
	if err != nil {
		b.Fatal(err)
	}
	config, err := l.CA.ServerConfig(l.Server)
	if err != nil {
		b.Fatal(err)
	}
	pair, err := tls.X509KeyPair(l.Client.CertPEM, l.Client.KeyPEM)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.CA.PEM)
	return credentials.NewTLS(config), credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair},
	})
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// mixed is 20 ms, and for one call in ten 200 ms.
func mixed() time.Duration {
	if rand.IntN(10) == 0 {
		return 200 * time.Millisecond
	}
	return 20 * time.Millisecond
}
