package tap_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/davidwartell/go-grpcpool/internal/h2server"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// fails connects a channel through s and returns how long it took to fail.
func fails(t *testing.T, s *tap.State, creds credentials.TransportCredentials, dialer func(context.Context, string) (net.Conn, error)) time.Duration {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///localhost", grpc.WithCredentialsBundle(tap.Bundle(creds, nil, s)), grpc.WithContextDialer(dialer))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	begun := time.Now()
	cc.Connect()
	await(t, cc, connectivity.TransientFailure)
	return time.Since(begun)
}

func TestAServerThatSendsNoSettingsIsGivenUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 16)
		srv := h2server.Start(l, h2server.WithFault(h2server.Silent))
		defer srv.Close()
		s := tap.New(tap.Events{}, tap.SettingsWithin(2*time.Second))
		took := fails(t, s, insecure.NewCredentials(), func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })
		if took != 2*time.Second {
			t.Errorf("given up after %v, want 2s", took)
		}
		if err := s.Cause(); !errors.Is(err, tap.ErrNoSettings) || err.Error() != "tap: no HTTP/2 SETTINGS came within 2s of the handshake: is this a gRPC server?" {
			t.Errorf("Cause() = %v", err)
		}
	})
}

// On real sockets, where the transport reads on ready, and under TLS.
func TestAServerThatSendsNoSettingsIsGivenUpOnRealSockets(t *testing.T) {
	local := localhost(t)
	serverConfig, err := local.CA.ServerConfig(local.Server)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		client credentials.TransportCredentials
		opts   []h2server.Option
	}{
		"plain TCP":  {insecure.NewCredentials(), nil},
		"mutual TLS": {credentials.NewTLS(clientTLS(t, local, local.Client)), []h2server.Option{h2server.WithTLS(serverConfig)}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := h2server.Start(l, append(tc.opts, h2server.WithFault(h2server.Silent))...)
			defer srv.Close()
			s := tap.New(tap.Events{}, tap.SettingsWithin(200*time.Millisecond))
			took := fails(t, s, tc.client, func(ctx context.Context, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
			})
			if err := s.Cause(); !errors.Is(err, tap.ErrNoSettings) || took > 10*time.Second {
				t.Errorf("Cause() = %v after %v", err, took)
			}
		})
	}
}

// The bound begins when the handshake has ended, and ends with SETTINGS: neither a
// slow handshake nor an idle connection falls under it.
func TestTheBoundOnSettingsLeavesHandshakesAndIdleConnectionsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := localhost(t)
		serverConfig, err := local.CA.ServerConfig(local.Server)
		if err != nil {
			t.Fatal(err)
		}
		serverConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			time.Sleep(15 * time.Second) // a very busy server
			return nil, nil
		}
		l := bufconn.Listen(1 << 16)
		srv := h2server.Start(l, h2server.WithTLS(serverConfig))
		defer srv.Close()
		s := tap.New(tap.Events{}, tap.SettingsWithin(2*time.Second))
		cc, err := grpc.NewClient("passthrough:///localhost",
			grpc.WithCredentialsBundle(tap.Bundle(credentials.NewTLS(clientTLS(t, local, local.Client)), nil, s)),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
			grpc.WithIdleTimeout(0))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		for range 3 {
			if _, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if n := srv.Counts().Connections; n != 1 || s.Cause() != nil {
			t.Errorf("%d connections, cause %v", n, s.Cause())
		}
	})
}

func TestAHandshakeIsBoundedWhereThatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		go io.Copy(io.Discard, there)
		defer there.Close()
		s := tap.New(tap.Events{}, tap.HandshakeWithin(5*time.Second))
		begun := time.Now()
		_, _, err := tap.Credentials(credentials.NewTLS(&tls.Config{ServerName: "x"}), s).ClientHandshake(t.Context(), "x", here)
		if !errors.Is(err, tap.ErrNoHandshake) || time.Since(begun) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		here, there2 := net.Pipe()
		go io.Copy(io.Discard, there2)
		defer there2.Close()
		_, _, err = tap.Credentials(credentials.NewTLS(&tls.Config{ServerName: "x"}), s).ClientHandshake(ctx, "x", here)
		if errors.Is(err, tap.ErrNoHandshake) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("when the caller's time is over first: %v", err)
		}
	})
}

func TestAPeerThatSpeaksSomethingElseIsTheCause(t *testing.T) {
	for name, tc := range map[string]struct {
		says string
		want error
		text string
	}{
		"HTTP/1":              {"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", tap.ErrHTTP1, `tap: the peer speaks HTTP/1: it answered "HTTP/1.1 400 Bad Request"`},
		"a TLS alert":         {"\x15\x03\x01\x00\x02\x02\x46", tap.ErrTLS, "tap: the peer speaks TLS: it answered plaintext with a TLS record"},
		"SSH":                 {"SSH-2.0-OpenSSH_9.6\r\n", tap.ErrNotHTTP2, `tap: the peer speaks no HTTP/2: its first bytes are "SSH-2.0-OpenSSH_9.6\r\n"`},
		"two bytes":           {"no", tap.ErrNotHTTP2, `tap: the peer speaks no HTTP/2: its first bytes are "no"`},
		"very much":           {strings.Repeat("x", 1<<12), tap.ErrNotHTTP2, `tap: the peer speaks no HTTP/2: its first bytes are "` + strings.Repeat("x", 32) + `"`},
		"the end":             {"", io.EOF, "tap: closed by the peer: EOF"},
		"a part of SETTINGS":  {"\x00\x00\x06\x04\x00", io.EOF, "tap: closed by the peer: EOF"},
		"SETTINGS, and noise": {"\x00\x00\x00\x04\x00\x00\x00\x00\x00HTTP/1.1", io.EOF, "tap: closed by the peer: EOF"},
	} {
		for _, size := range []int{1, 1 << 10} {
			t.Run(name, func(t *testing.T) {
				s := tap.New(tap.Events{}, tap.SettingsWithin(time.Minute))
				peer := script{readErr: io.EOF}
				peer.in.WriteString(tc.says)
				conn := s.Wrap(&peer, nil)
				for {
					if _, err := conn.Read(make([]byte, size)); err != nil {
						break
					}
				}
				got := s.Cause()
				if size == 1 && len(tc.says) > 9 && errors.Is(got, tc.want) {
					return // judged by the first nine bytes, which are all there were
				}
				if !errors.Is(got, tc.want) || got.Error() != tc.text {
					t.Errorf("in pieces of %d: Cause() = %v, want %s", size, got, tc.text)
				}
			})
		}
	}
}

// The alert of a refused certificate is found though the bound has set a deadline
// of its own.
func TestTheBoundOnSettingsDoesNotHideAnAlert(t *testing.T) {
	local := localhost(t)
	_, addr := serve(t, "tcp", grpc.Creds(serverTLS(t, local)))
	for range 20 {
		s := tap.New(tap.Events{}, tap.SettingsWithin(time.Minute))
		fails(t, s, credentials.NewTLS(clientTLS(t, local)), func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		})
		if err := s.Cause(); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Fatalf("Cause() = %v", err)
		}
	}
}

func TestSettingsLiftTheBound(t *testing.T) {
	here, there := sockets(t)
	conn := tap.New(tap.Events{}, tap.SettingsWithin(50*time.Millisecond)).Wrap(here, nil)
	http2.NewFramer(there, nil).WriteSettings()
	if _, err := io.ReadFull(conn, make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 9))
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("a read after SETTINGS ended with %v", err)
	case <-time.After(200 * time.Millisecond): // four times the bound, in which nothing must happen
	}
	there.Write([]byte("x"))
	if err := <-answer; err != nil {
		t.Error(err)
	}
}
