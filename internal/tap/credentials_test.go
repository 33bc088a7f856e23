package tap_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// token is a per-RPC credential.
type token string

func (k token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": string(k)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// moded is a bundle that knows every mode but "none".
type moded string

var errNoMode = errors.New("no such mode")

func (moded) TransportCredentials() credentials.TransportCredentials {
	return insecure.NewCredentials()
}
func (m moded) PerRPCCredentials() credentials.PerRPCCredentials { return token(m) }

func (moded) NewWithMode(mode string) (credentials.Bundle, error) {
	if mode == "none" {
		return nil, errNoMode
	}
	return moded(mode), nil
}

// attaches reports whether a handshake with creds attaches s.
func attaches(t *testing.T, creds credentials.TransportCredentials, s *tap.State) bool {
	t.Helper()
	if _, _, err := creds.ClientHandshake(t.Context(), "localhost", &script{}); err != nil {
		t.Fatal(err)
	}
	return s.Attached()
}

func TestABundleKeepsThePerRPCCredentialsAndHasNoModes(t *testing.T) {
	s := tap.New(tap.Events{})
	b := tap.Bundle(insecure.NewCredentials(), token("t"), s)
	if got := b.PerRPCCredentials(); got != token("t") {
		t.Errorf("PerRPCCredentials() = %v", got)
	}
	if b, err := b.NewWithMode("fallback"); err == nil || b != nil {
		t.Errorf("NewWithMode = %v, %v, want an error", b, err)
	}
	if got := tap.Bundle(insecure.NewCredentials(), nil, s).PerRPCCredentials(); got != nil {
		t.Errorf("PerRPCCredentials() = %v, want nil", got)
	}
	if !attaches(t, b.TransportCredentials(), s) {
		t.Error("the handshake attaches nothing")
	}
}

func TestAWrappedBundleKeepsItsModes(t *testing.T) {
	s := tap.New(tap.Events{})
	b, err := tap.WrapBundle(moded("first"), s).NewWithMode("second")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.PerRPCCredentials(); got != token("second") {
		t.Errorf("PerRPCCredentials() = %v, want those of the mode", got)
	}
	if !attaches(t, b.TransportCredentials(), s) {
		t.Error("the handshake attaches nothing")
	}
	if _, err := b.NewWithMode("none"); !errors.Is(err, errNoMode) {
		t.Errorf("NewWithMode: %v, want the bundle's own error", err)
	}
}

// refusing are credentials whose handshake fails.
type refusing struct {
	credentials.TransportCredentials
}

var errRefused = errors.New("refused")

func (refusing) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errRefused
}

func TestAFailedHandshakeAttachesNothing(t *testing.T) {
	s := tap.New(tap.Events{})
	creds := tap.Credentials(refusing{insecure.NewCredentials()}, s)
	conn, _, err := creds.ClientHandshake(t.Context(), "localhost", &script{})
	if conn != nil || !errors.Is(err, errRefused) || s.Attached() {
		t.Errorf("ClientHandshake = %v, %v; attached %v", conn, err, s.Attached())
	}
	if got, want := creds.Info(), insecure.NewCredentials().Info(); got != want {
		t.Errorf("Info() = %v, want %v", got, want)
	}
}
