//go:build unix

package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
)

// orders is a program's service.
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
			certs, err := grpcpooltest.NewCerts()
			if err != nil {
				t.Fatal(err)
			}
			nginx := realserver.StartNginx(t, realserver.Config{
				Certs: certs, MaxStreams: 100, Backend: l.Addr().String(), Only: "/grpc.testing.TestService/", Others: others,
			})
			p := startProxy(t, certs, nginx.Addr)
			errs := ping(t, nginx.Addr, filepath.Dir(p.socket))
			if len(errs) != 2 {
				t.Errorf("%d pings, want 2", len(errs))
			}
			for _, got := range errs {
				if want := fmt.Sprintf("it answers HTTP %d (", code); !strings.HasPrefix(got, want) || strings.Contains(got, "<") {
					t.Errorf("a ping's error is %q, want %q", got, want)
				}
			}
			if _, err := testpb.NewTestServiceClient(p.client()).EmptyCall(within(t, soon), &testpb.Empty{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// ping pings twice, as a user does, and returns each ping's error. The certificates
// are in dir.
func ping(t *testing.T, addr, dir string) []string {
	t.Helper()
	out, err := exec.CommandContext(within(t, soon), command, "ping", "--json", "--count", "2", "--interval", "1ms",
		"--ca", filepath.Join(dir, "ca.pem"), "--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"), addr).Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var report struct {
		Pings []struct {
			Error string `json:"error"`
		} `json:"pings"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	errs := make([]string, len(report.Pings))
	for i, p := range report.Pings {
		errs[i] = p.Error
	}
	return errs
}
