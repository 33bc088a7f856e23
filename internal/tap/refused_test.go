package tap_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// stranger is a client certificate from an authority nobody knows.
func stranger(t *testing.T) grpcpooltest.KeyPair {
	t.Helper()
	return localhost(t).Client
}

func expired(t *testing.T, local *grpcpooltest.Certs) grpcpooltest.KeyPair {
	t.Helper()
	pair, err := local.CA.Issue(grpcpooltest.CertRequest{
		NotBefore: time.Now().Add(-2 * time.Hour),
		NotAfter:  time.Now().Add(-time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestARefusedClientCertificateIsTheCauseEveryTime(t *testing.T) {
	local := localhost(t)
	_, addr := serve(t, "tcp", grpc.Creds(serverTLS(t, local)))
	for _, tc := range []struct {
		name  string
		tries int
		cfg   *tls.Config
		alert string
	}{
		{"an unknown authority", 60, clientTLS(t, local, stranger(t)), "tls: unknown certificate authority"},
		{"no certificate", 20, clientTLS(t, local), "tls: certificate required"},
		{"expired", 20, clientTLS(t, local, expired(t, local)), "tls: expired certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			named := 0
			for range tc.tries {
				cause := refusal(t, addr, credentials.NewTLS(tc.cfg))
				if cause != nil && strings.Contains(cause.Error(), tc.alert) {
					named++
				} else {
					t.Logf("Cause() = %v", cause)
				}
			}
			if named != tc.tries {
				t.Errorf("%q was named in %d of %d tries", tc.alert, named, tc.tries)
			}
		})
	}
}

// refusal connects a channel and returns the cause that is known at the moment
// the channel reports failure.
func refusal(t *testing.T, addr net.Addr, creds credentials.TransportCredentials) error {
	t.Helper()
	s := tap.New(tap.Events{})
	cc, err := grpc.NewClient(target(addr), grpc.WithCredentialsBundle(tap.Bundle(creds, nil, s)))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	cc.Connect()
	await(t, cc, connectivity.TransientFailure)
	return s.Cause()
}

// TestAFailedWriteFindsTheAlertByItself takes the transport's reader away, and
// with it the luck of who comes first.
func TestAFailedWriteFindsTheAlertByItself(t *testing.T) {
	local := localhost(t)
	serverConfig, err := local.CA.ServerConfig(local.Server)
	if err != nil {
		t.Fatal(err)
	}
	serverConfig.NextProtos = []string{"h2"}
	here, there := sockets(t)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = tls.Server(there, serverConfig).Handshake() // refuses, and says so
		there.Close()
	}()
	s := tap.New(tap.Events{})
	creds := tap.Credentials(credentials.NewTLS(clientTLS(t, local, stranger(t))), s)
	conn, _, err := creds.ClientHandshake(t.Context(), "localhost", here)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-gone
	for err == nil { // the first write is what the peer answers with a reset
		_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	}
	cause := s.Cause()
	if cause == nil || !strings.Contains(cause.Error(), "tls: unknown certificate authority") {
		t.Errorf("the write failed with %q and Cause() = %v", err, cause)
	}
}

func TestWhatIsTakenInSearchOfAnAlertIsNotUnderstood(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: access denied")}
	s := tap.New(tap.Events{})
	peer := script{writeErr: syscall.EPIPE, readErr: alert}
	conn := s.Wrap(&peer, credentials.TLSInfo{})
	peer.in.WriteString("half a frame")
	conn.Write([]byte("x"))
	if err := s.Cause(); !errors.Is(err, alert) {
		t.Errorf("Cause() = %v, want the alert behind the data", err)
	}
	http2.NewFramer(&peer.in, nil).WriteSettings(limit(1))
	peer.hear(t, conn)
	if s.Settled() {
		t.Error("bytes behind a hole are taken for frames")
	}
}

func TestAFailedWriteTakesNothingFromATransportThatStands(t *testing.T) {
	s := tap.New(tap.Events{})
	peer := script{writeErr: syscall.EPIPE, readErr: net.ErrClosed}
	conn := s.Wrap(&peer, credentials.TLSInfo{})
	fr := http2.NewFramer(&peer.in, nil)
	fr.WriteSettings(limit(1))
	peer.hear(t, conn)
	fr.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings"))
	conn.Write([]byte("x"))
	if peer.in.Len() == 0 {
		t.Fatal("the GOAWAY was taken")
	}
	peer.hear(t, conn)
	if g, ok := s.LastGoAway(); !ok || g.Debug != "too_many_pings" {
		t.Errorf("LastGoAway() = %+v, %v", g, ok)
	}
}
