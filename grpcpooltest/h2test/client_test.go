package h2test_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

func newClient(t *testing.T, srv *h2test.Server, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(srv.Target(), srv.DialOptions(opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func TestAServerOfATestIsReachedInMemoryAndOnLoopback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls(t, newClient(t, h2test.NewServer(t, h2test.WithInMemory())), 10)
	})
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	serverTLS, err := certs.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	clientTLS, err := certs.ClientTLS()
	if err != nil {
		t.Fatal(err)
	}
	calls(t, newClient(t, h2test.NewServer(t)), 10)
	calls(t, newClient(t, h2test.NewServer(t, h2test.WithTLS(serverTLS)), grpc.WithTransportCredentials(credentials.NewTLS(clientTLS))), 10)
}

func TestALinkLeadsToAStrictServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := h2test.NewServer(t, h2test.WithInMemory())
		link := grpcpooltest.NewLink(srv.Dial)
		cc := newClient(t, srv, link.DialOption())
		calls(t, cc, 1)
		link.Blackhole()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := call(ctx, cc); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("in a blackhole the call ended with %v, want no answer", err)
		}
		link.Heal()
		calls(t, cc, 1)
	})
}

// failing is a test that a server fails.
type failing struct{ said string }

func (*failing) Helper()                          {}
func (*failing) Cleanup(c func())                 { c() }
func (f *failing) Errorf(format string, a ...any) { f.said += fmt.Sprintf(format, a...) }
func (f *failing) Fatalf(format string, a ...any) { f.Errorf(format, a...) }

func TestAMistakeInAnOptionFailsTheTest(t *testing.T) {
	for want, opt := range map[string]h2test.Option{
		"an option is nil": nil,
		"WithTLS: the":     h2test.WithTLS((*tls.Config)(nil)),
		"WithOnCall: the":  h2test.WithOnCall(nil),
		"unknown fault":    h2test.WithFault(-1),
	} {
		var f failing
		h2test.NewServer(&f, opt)
		if !strings.HasPrefix(f.said, "h2test: ") || !strings.Contains(f.said, want) {
			t.Errorf("the test failed with %q, want %q", f.said, want)
		}
	}
}
