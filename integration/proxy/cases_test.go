//go:build unix

package proxy_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	orcapb "github.com/cncf/xds/go/xds/data/orca/v3"
	orcaservice "github.com/cncf/xds/go/xds/service/orca/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// ORCA (gRFC A51) is how servers tell clients of their load: in a trailer of each
// call, and over a stream of the balancer's own.
func TestLoadReportsReachTheClientsBalancer(t *testing.T) {
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	metrics := orca.NewServerMetricsRecorder()
	s := startServerAt(t, "127.0.0.1:0", certs, func(g *grpc.Server) {
		testpb.RegisterTestServiceServer(g, interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: metrics}))
		orcaservice.RegisterOpenRcaServiceServer(g, loadReports{metrics: metrics})
	}, orca.CallMetricsServerOption(nil))
	p := startProxy(t, s.certs, s.addr)
	tc := testpb.NewTestServiceClient(p.client(
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`)))
	ctx := within(t, 2*soon)
	interop.DoORCAPerRPCTest(ctx, tc)
	interop.DoORCAOOBTest(ctx, tc)
}

// loadReports sends them as often as the client asks. orca's own service does so
// every 30 s at the soonest, and the case ends before.
type loadReports struct {
	orcaservice.UnimplementedOpenRcaServiceServer

	metrics orca.ServerMetricsProvider
}

// StreamCoreMetrics implements orcaservice.OpenRcaServiceServer.
func (l loadReports) StreamCoreMetrics(in *orcaservice.OrcaLoadReportRequest, stream grpc.ServerStreamingServer[orcapb.OrcaLoadReport]) error {
	tick := time.NewTicker(max(in.GetReportInterval().AsDuration(), time.Millisecond))
	defer tick.Stop()
	for {
		m := l.metrics.ServerMetrics()
		err := stream.Send(&orcapb.OrcaLoadReport{
			CpuUtilization: max(m.CPUUtilization, 0), MemUtilization: max(m.MemUtilization, 0), Utilization: m.Utilization,
		})
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// rpc_soak and channel_soak: large calls of several callers, over one channel and over
// one for each call.
func TestSoakingClientsShareOneConnection(t *testing.T) {
	s := startServer(t, interop.NewTestServer())
	p := startProxy(t, s.certs, s.addr)
	shared := p.client()
	for name, channel := range map[string]func() (*grpc.ClientConn, func()){
		"rpc_soak": func() (*grpc.ClientConn, func()) { return shared, func() {} },
		"channel_soak": func() (*grpc.ClientConn, func()) {
			cc := p.client()
			return cc, func() { cc.Close() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			interop.DoSoakTest(within(t, 2*soon), interop.SoakTestConfig{
				RequestSize:                      271_828,
				ResponseSize:                     314_159,
				PerIterationMaxAcceptableLatency: soon,
				OverallTimeout:                   2 * soon,
				ServerAddr:                       "unix:" + p.socket,
				NumWorkers:                       4,
				Iterations:                       100,
				ChannelForTest:                   channel,
			})
		})
	}
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
}

// named says in its answers which server it is.
type named struct {
	testpb.TestServiceServer

	name string
}

// UnaryCall implements testpb.TestServiceServer.
func (n named) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	out, err := n.TestServiceServer.UnaryCall(ctx, in)
	if err == nil && in.GetFillServerId() {
		out.ServerId = n.name
	}
	return out, err
}

// pick_first_unary is about a client that finds several servers under one name. Here
// it is the proxy that looks the name up.
func TestTheProxyStaysWithOneOfSeveralServers(t *testing.T) {
	wantSecondLoopback(t)
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	if certs.Server, err = certs.CA.Issue(grpcpooltest.CertRequest{Hosts: []string{apiName}}); err != nil {
		t.Fatal(err)
	}
	start := func(address, name string) *server {
		return startServerAt(t, address, certs, func(g *grpc.Server) {
			testpb.RegisterTestServiceServer(g, named{interop.NewTestServer(), name})
		})
	}
	first := start("127.0.0.1:0", "first")
	port := strings.TrimPrefix(first.addr, "127.0.0.1:")
	servers := map[string]*server{"first": first, "second": start("127.0.0.2:"+port, "second")}
	dns := startDNS(t, [4]byte{127, 0, 0, 1}, [4]byte{127, 0, 0, 2})
	p := startProxy(t, certs, "dns://"+dns+"/"+apiName+":"+port)
	tc, ctx := testpb.NewTestServiceClient(p.client()), within(t, 2*soon)
	interop.DoPickFirstUnary(ctx, tc)
	// That the proxy knows of both shows when the one is gone.
	answer, err := tc.UnaryCall(ctx, &testpb.SimpleRequest{FillServerId: true})
	if err != nil {
		t.Fatal(err)
	}
	picked := answer.GetServerId()
	servers[picked].stop()
	eventually(t, "calls go to the other server", func() bool {
		answer, err := tc.UnaryCall(ctx, &testpb.SimpleRequest{FillServerId: true})
		return err == nil && answer.GetServerId() != picked
	})
	interop.DoPickFirstUnary(ctx, tc)
}

// wantSecondLoopback skips a test where loopback has one address only.
func wantSecondLoopback(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	switch {
	case err == nil:
		l.Close()
	case os.Getenv("GRPCPOOL_REQUIRE_ALL") != "":
		t.Fatal("there is no second loopback address: ", err)
	default:
		t.Skip("there is no second loopback address: ", err)
	}
}
