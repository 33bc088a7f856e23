//go:build unix

package proxybench_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// limit is larger than any message here.
const limit = 8 << 20

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

// decoding is a simple proxy: a server of the same service that decodes every message.
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

// relay copies bytes, which is the least that any process in between costs. The TLS
// session is the client's own.
type relay struct{ target string }

func (r relay) serve(l net.Listener) error {
	for {
		near, err := l.Accept()
		if err != nil {
			return err
		}
		far, err := net.Dial("tcp", r.target)
		if err != nil {
			near.Close()
			return err
		}
		// Without this Go would splice the sockets in the kernel, which pays off for many
		// bytes and costs more for few.
		go func() { defer far.Close(); io.Copy(struct{ io.Writer }{far}, struct{ io.Reader }{near}) }()
		go func() { defer near.Close(); io.Copy(struct{ io.Writer }{near}, struct{ io.Reader }{far}) }()
	}
}

// Names of the files in a site's directory.
const (
	caFile, certFile, keyFile = "ca.pem", "cert.pem", "key.pem"
	serverCert, serverKey     = "server.pem", "server-key.pem"
)

// The roles of this program in a process of its own.
const (
	roleServer   = "server"
	roleRelay    = "relay"
	roleDecoding = "decoding"
)

// run serves in a role until standard input ends, and writes its address to standard
// output. args are the directory and the arguments of the role.
func run(role string, args []string) error {
	l, serve, err := prepare(role, args)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		l.Close()
	}()
	fmt.Println(l.Addr())
	if err := serve(l); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// prepare listens, and returns a func that serves.
func prepare(role string, args []string) (l net.Listener, serve func(net.Listener) error, err error) {
	switch role {
	case roleServer:
		config, err := serverTLS(args[0])
		if err != nil {
			return nil, nil, err
		}
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return l, newServer(service{}, grpc.Creds(credentials.NewTLS(config))).Serve, err
	case roleRelay:
		l, err = net.Listen("unix", filepath.Join(args[0], role))
		return l, relay{args[1]}.serve, err
	case roleDecoding:
		next, err := direct(args[0], args[1])
		if err != nil {
			return nil, nil, err
		}
		l, err = net.Listen("unix", filepath.Join(args[0], role))
		return l, newServer(decoding{next: testpb.NewTestServiceClient(next)}).Serve, err
	default:
		return nil, nil, fmt.Errorf("unknown role %q", role)
	}
}

func newServer(service testpb.TestServiceServer, opts ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(limit))...)
	testpb.RegisterTestServiceServer(g, service)
	return g
}

func serverTLS(dir string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, serverCert), filepath.Join(dir, serverKey))
	if err != nil {
		return nil, err
	}
	roots, err := readRoots(dir)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
	}, err
}

func readRoots(dir string) (*x509.CertPool, error) {
	data, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, errors.New("no certificate in " + caFile)
	}
	return roots, nil
}

// direct connects without anything in between.
func direct(dir, target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	roots, err := readRoots(dir)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(target, append(opts, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit)),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair},
		})))...)
}

// relayed connects over a relay.
func relayed(dir, target string) (*grpc.ClientConn, error) {
	return direct(dir, "passthrough:///"+target, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, roleRelay))
	}))
}

// local connects over a proxy.
func local(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit)))
}
