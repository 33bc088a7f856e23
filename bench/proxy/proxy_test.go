package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/pki"
	"github.com/davidwartell/go-grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/shared"
)

var round = flag.Int("round", 0, "peers take turns: which round this is")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}

// service echoes payloads.
type service struct {
	testpb.UnimplementedTestServiceServer
}

func (service) UnaryCall(_ context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: in.GetPayload()}, nil
}

func (service) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	m := &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, in.GetResponseParameters()[0].GetSize())}}
	for {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// decoding is the plain way to write a proxy: a server of the same service.
type decoding struct {
	testpb.UnimplementedTestServiceServer

	next testpb.TestServiceClient
}

func (d decoding) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return d.next.UnaryCall(ctx, in)
}

func (d decoding) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	from, err := d.next.StreamingOutputCall(stream.Context(), in)
	if err != nil {
		return err
	}
	for {
		m, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// site is a server with mutual TLS, and the ways to it.
type site struct {
	direct        func() (*grpc.ClientConn, error)
	proxy, decode string // paths of Unix sockets
}

type way struct {
	name string
	dial func() (*grpc.ClientConn, error)
}

// ways are in another order each round.
func (s *site) ways() []way {
	all := []way{
		{"direct", s.direct},
		{"proxy", func() (*grpc.ClientConn, error) { return local(s.proxy) }},
		{"decoding", func() (*grpc.ClientConn, error) { return local(s.decode) }},
	}
	k := *round % len(all)
	return append(append([]way(nil), all[k:]...), all[:k]...)
}

const limit = 8 << 20

func local(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit)))
}

func newSite(b *testing.B) *site {
	b.Helper()
	certs, err := pki.NewLocalhost()
	if err != nil {
		b.Fatal(err)
	}
	config, err := certs.CA.ServerConfig(certs.Server)
	if err != nil {
		b.Fatal(err)
	}
	target := serve(b, "tcp", "127.0.0.1:0", service{}, grpc.Creds(credentials.NewTLS(config)))
	dir, err := os.MkdirTemp("", "bench") //nolint:usetesting // b.TempDir is too long a path for a socket
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{proxy: filepath.Join(dir, "proxy"), decode: filepath.Join(dir, "decode")}
	pair, err := tls.X509KeyPair(certs.Client.CertPEM, certs.Client.KeyPEM)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certs.CA.PEM)
	s.direct = func() (*grpc.ClientConn, error) {
		return grpc.NewClient(target, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit)),
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
				MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair},
			})))
	}
	next, err := s.direct()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { next.Close() })
	serve(b, "unix", s.decode, decoding{next: testpb.NewTestServiceClient(next)})
	startProxy(b, s.proxy, func() (*shared.Pool, error) {
		factory, err := grpcpool.NewMutualTLSFactory(certs.CA.PEM, certs.Client.CertPEM, certs.Client.KeyPEM, target,
			30*time.Second, 10*time.Second, nil, grpcpool.WithDialOptions(proxy.DialOptions()...))
		if err != nil {
			return nil, err
		}
		return shared.New(factory, time.Minute), nil
	})
	return s
}

func serve(b *testing.B, network, address string, service testpb.TestServiceServer, opts ...grpc.ServerOption) (at string) {
	b.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer(append([]grpc.ServerOption{grpc.MaxRecvMsgSize(limit)}, opts...)...)
	testpb.RegisterTestServiceServer(g, service)
	go g.Serve(l)
	b.Cleanup(g.Stop)
	return l.Addr().String()
}

func startProxy(b *testing.B, path string, upstream func() (*shared.Pool, error)) {
	b.Helper()
	p, err := proxy.New(proxy.Config{Upstream: upstream})
	if err != nil {
		b.Fatal(err)
	}
	l, err := proxy.Listen(b.Context(), "unix", path, proxy.Access{})
	if err != nil {
		b.Fatal(err)
	}
	go p.Serve(l)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.Shutdown(ctx) // streams that a benchmark has left are cut
	})
}

// cpu measures the CPU time of a benchmark's loop.
func cpu(b *testing.B, loop func()) {
	b.Helper()
	before := used(b)
	b.ResetTimer()
	loop()
	b.StopTimer()
	b.ReportMetric(float64(used(b)-before)/float64(b.N), "cpu-ns/op")
}

func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (s *site) each(b *testing.B, name string, run func(b *testing.B, client testpb.TestServiceClient)) {
	b.Helper()
	for _, w := range s.ways() {
		b.Run(name+"/way="+w.name, func(b *testing.B) {
			cc, err := w.dial()
			if err != nil {
				b.Fatal(err)
			}
			defer cc.Close()
			run(b, testpb.NewTestServiceClient(cc))
		})
	}
}

// BenchmarkUnary is a warm unary call, one at a time and 32 at a time.
func BenchmarkUnary(b *testing.B) {
	s := newSite(b)
	for _, size := range []int{0, 16 << 10, 1 << 20} {
		in := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}
		for _, callers := range []int{1, 32} {
			s.each(b, "bytes="+strconv.Itoa(size)+"/callers="+strconv.Itoa(callers), func(b *testing.B, client testpb.TestServiceClient) {
				b.Helper()
				call := func() {
					if _, err := client.UnaryCall(b.Context(), in); err != nil {
						b.Error(err)
					}
				}
				call()
				b.ReportAllocs()
				b.SetBytes(int64(2 * size))
				b.SetParallelism(callers)
				cpu(b, func() {
					if callers == 1 {
						for range b.N {
							call()
						}
						return
					}
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							call()
						}
					})
				})
			})
		}
	}
}

// BenchmarkStream is messages from the server on one stream.
func BenchmarkStream(b *testing.B) {
	s := newSite(b)
	for _, size := range []int{16 << 10, 1 << 20} {
		s.each(b, "bytes="+strconv.Itoa(size), func(b *testing.B, client testpb.TestServiceClient) {
			b.Helper()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
				ResponseParameters: []*testpb.ResponseParameters{{Size: int32(size)}},
			})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			cpu(b, func() {
				for range b.N {
					if _, err := stream.Recv(); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkFirstCall is a program that makes one call: a channel, its first call, and
// the channel's end.
func BenchmarkFirstCall(b *testing.B) {
	s := newSite(b)
	for _, w := range s.ways() {
		b.Run("way="+w.name, func(b *testing.B) {
			cpu(b, func() {
				for range b.N {
					cc, err := w.dial()
					if err != nil {
						b.Fatal(err)
					}
					if _, err := testpb.NewTestServiceClient(cc).UnaryCall(b.Context(), &testpb.SimpleRequest{}); err != nil {
						b.Error(err)
					}
					cc.Close()
				}
			})
		})
	}
}
