//go:build unix

package integration_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/internal/ping"
	"github.com/davidwartell/go-grpcpool/shared"
)

type orders struct {
	testpb.UnimplementedTestServiceServer
}

func (orders) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

// An nginx that routes the program's service only: its answers to health checks are
// pages. Pings say so, and calls pass.
func TestNginxThatRoutesOneServiceOnlyIsToldAndPassed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testpb.RegisterTestServiceServer(server, orders{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	for code, others := range map[int]string{
		404: "location / { return 404; }",
		405: "location / { root .; try_files /ca.pem =404; }", // a POST to a file
		403: "location / { deny all; }",
		302: "location / { return 302 https://login.example/; }",
		503: "location / { return 503; }",
	} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			certs := localhost(t)
			nginx := realserver.StartNginx(t, realserver.Config{
				Certs: certs, MaxStreams: 100, Backend: l.Addr().String(), Only: "/grpc.testing.TestService/", Others: others,
			})
			factory, err := grpcpool.NewMutualTLSFactory(certs.CA.PEM, certs.Client.CertPEM, certs.Client.KeyPEM, nginx.Addr,
				30*time.Second, 10*time.Second, ping.Alive)
			if err != nil {
				t.Fatal(err)
			}
			pool := shared.New(factory, time.Minute)
			defer pool.Close()
			ctx := within(t, soon)
			ping.Run(ctx, pool, ping.Config{Count: 2, Interval: time.Millisecond, Timeout: soon}, func(p ping.Ping) {
				if want := fmt.Sprintf("it answers HTTP %d (", code); !strings.HasPrefix(p.Error, want) || strings.Contains(p.Error, "<") {
					t.Errorf("%+v, want %q", p, want)
				}
			})
			if _, err := testpb.NewTestServiceClient(pool).EmptyCall(ctx, &testpb.Empty{}); err != nil {
				t.Error(err)
			}
		})
	}
}
