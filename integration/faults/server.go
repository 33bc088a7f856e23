//go:build linux

package faults

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/identity"
)

// asServer is the environment variable that makes a process a server.
const asServer = "FAULTS_SERVER"

// serverConfig is what it holds, as JSON.
type serverConfig struct {
	Addr  string        `json:"addr"`
	CA    []byte        `json:"ca"` // PEM; with Cert and Key: mutual TLS. Without: plaintext
	Cert  []byte        `json:"cert"`
	Key   []byte        `json:"key"`
	Limit uint32        `json:"limit"` // on concurrent streams; 0: none
	Age   time.Duration `json:"age"`   // MaxConnectionAge; 0: none
	Takes time.Duration `json:"takes"` // that a unary call takes
	Mute  bool          `json:"mute"`  // the health service never answers
}

// credentials demand a client certificate.
func (cfg serverConfig) credentials() (credentials.TransportCredentials, error) {
	pair, err := identity.ParseKeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("faults: the server's pair: %w", err)
	}
	clients, err := identity.ParseRoots(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("faults: the authority of the clients: %w", err)
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}), nil
}

// serving is the line that a server prints when it listens.
const serving = "serving\n"

// ServeIfAsked makes this process a server if it was started as one, and then does
// not return. Programs that run scenarios call it first of all.
func ServeIfAsked() {
	config := os.Getenv(asServer)
	if config == "" {
		return
	}
	if err := serve(config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve serves until its standard input ends, which is when its parent has. Each line
// of its input is an order; see process.ask.
func serve(config string) error {
	s := &server{}
	if err := json.Unmarshal([]byte(config), &s.config); err != nil {
		return fmt.Errorf("faults: %s: %w", asServer, err)
	}
	if err := s.start(); err != nil {
		return err
	}
	fmt.Print(serving)
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		word, arg, _ := strings.Cut(orders.Text(), " ")
		switch word {
		case orderCount:
			fmt.Println(s.counts.probes.Load(), s.counts.others.Load())
		case orderRestart:
			back, err := s.restart(arg)
			if err != nil {
				return err
			}
			fmt.Println(back.UnixNano())
		case orderMute:
			s.health.mute(arg == "true")
			fmt.Println(arg)
		}
	}
	return s.stop()
}

// The orders that a server takes.
const (
	orderCount   = "count"   // answers how many probes came, and other RPCs than the scenario's
	orderMute    = "mute"    // "mute true": the health service does not answer any more, or again; answers the same
	orderRestart = "restart" // "restart 50ms": is away so long, and answers when it was back (Unix time in ns)
)

// server is what serve runs.
type server struct {
	config serverConfig
	counts counts
	health muteable
	grpc   *grpc.Server
	ended  chan error
}

// start begins to serve.
func (s *server) start() error {
	opts := []grpc.ServerOption{grpc.StatsHandler(&s.counts)}
	if s.config.Cert != nil {
		creds, err := s.config.credentials()
		if err != nil {
			return err
		}
		opts = append(opts, grpc.Creds(creds))
	}
	if s.config.Limit > 0 {
		opts = append(opts, grpc.MaxConcurrentStreams(s.config.Limit))
	}
	if s.config.Age > 0 {
		opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: s.config.Age}))
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", s.config.Addr)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	s.grpc, s.ended = grpc.NewServer(opts...), make(chan error, 1)
	s.health.mute(s.config.Mute)
	healthpb.RegisterHealthServer(s.grpc, &s.health)
	testpb.RegisterTestServiceServer(s.grpc, testService{takes: s.config.Takes})
	go func() { s.ended <- s.grpc.Serve(listener) }()
	return nil
}

// stop ends every connection and waits for the end.
func (s *server) stop() error {
	s.grpc.Stop()
	if err := <-s.ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("faults: serving: %w", err)
	}
	return nil
}

// restart has nobody listen for so long, and tells when somebody does again.
func (s *server) restart(away string) (time.Time, error) {
	d, err := time.ParseDuration(away)
	if err != nil {
		return time.Time{}, fmt.Errorf("faults: %w", err)
	}
	gone := time.Now()
	if err := s.stop(); err != nil {
		return time.Time{}, err
	}
	time.Sleep(time.Until(gone.Add(d)))
	if err := s.start(); err != nil {
		return time.Time{}, err
	}
	return time.Now(), nil
}

// probeHeader marks the library's probes.
const probeHeader = "grpcpool-probe"

// counts counts the RPCs that are not the scenario's own. It is a stats.Handler.
type counts struct {
	probes atomic.Int64 // those that bear probeHeader
	others atomic.Int64
}

// TagRPC does nothing.
func (*counts) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC counts.
func (c *counts) HandleRPC(_ context.Context, s stats.RPCStats) {
	in, ok := s.(*stats.InHeader)
	switch {
	case !ok:
	case slices.Equal(in.Header.Get(probeHeader), []string{"1"}):
		c.probes.Add(1)
	case !strings.HasPrefix(in.FullMethod, "/"+testpb.TestService_ServiceDesc.ServiceName+"/"):
		c.others.Add(1)
	}
}

// TagConn does nothing.
func (*counts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (*counts) HandleConn(context.Context, stats.ConnStats) {}

// muteable is a health service that answers or does not.
type muteable struct {
	healthpb.UnimplementedHealthServer

	muted atomic.Bool
}

func (m *muteable) mute(mute bool) { m.muted.Store(mute) }

func (m *muteable) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if m.muted.Load() {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// testService answers the calls of scenarios.
type testService struct {
	testpb.UnimplementedTestServiceServer

	takes time.Duration
}

func (s testService) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	time.Sleep(s.takes)
	return &testpb.SimpleResponse{}, nil
}

// FullDuplexCall says that it has begun, and then nothing until the client is done.
func (testService) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return nil //nolint:nilerr // whatever ended it, it has ended
		}
	}
}

// StreamingOutputCall sends empty messages at the interval that the request names,
// until the client is gone.
func (testService) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	tick := time.NewTicker(time.Duration(in.GetResponseParameters()[0].GetIntervalUs()) * time.Microsecond)
	defer tick.Stop()
	for {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
