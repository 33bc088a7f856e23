package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

const goodToken = "0123456789abcdef-secret"

// guarded starts a proxy that listens on loopback TCP.
func guarded(t *testing.T, access proxy.Access) (address string, calls func() int64) {
	t.Helper()
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) })
	p := newProxy(t, target)
	return serve(t, p.Server, "tcp", "127.0.0.1:0", access).String(), func() int64 { return p.Stats().Calls() }
}

func TestACallNeedsTheToken(t *testing.T) {
	address, calls := guarded(t, proxy.Access{Token: goodToken})
	client := testpb.NewTestServiceClient(dial(t, address))
	for name, values := range map[string][]string{
		"none":         nil,
		"wrong":        {"Bearer 0123456789abcdef-secreT"},
		"a part":       {"Bearer 0123456789abcdef"},
		"more":         {"Bearer " + goodToken + "x"},
		"empty":        {"Bearer "},
		"other scheme": {"Basic " + goodToken},
		"no scheme":    {goodToken},
		"twice":        {"Bearer " + goodToken, "Bearer " + goodToken},
	} {
		ctx := testContext(t)
		_, err := client.UnaryCall(metadata.NewOutgoingContext(ctx, metadata.MD{"proxy-authorization": values}), &testpb.SimpleRequest{})
		if status.Code(err) != codes.Unauthenticated || strings.Contains(err.Error(), goodToken) {
			t.Errorf("%s: %v, want UNAUTHENTICATED without the token", name, err)
		}
	}
	if n := calls(); n != 0 {
		t.Errorf("%d calls were taken", n)
	}
	ctx := metadata.AppendToOutgoingContext(testContext(t), "proxy-authorization", "bearer "+goodToken)
	if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil {
		t.Errorf("with the token: %v", err)
	}
}

func TestAConnectionNeedsACertificate(t *testing.T) {
	l, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	config, err := l.CA.ServerConfig(l.Server)
	if err != nil {
		t.Fatal(err)
	}
	address, calls := guarded(t, proxy.Access{TLS: credentials.NewTLS(config)})
	stranger, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		creds credentials.TransportCredentials
		want  codes.Code
	}{
		"the right one":     {clientTLS(t, l.CA, &l.Client), codes.OK},
		"none":              {clientTLS(t, l.CA, nil), codes.Unavailable},
		"another CA's":      {clientTLS(t, l.CA, &stranger.Client), codes.Unavailable},
		"plaintext instead": {insecure.NewCredentials(), codes.Unavailable},
	} {
		before := calls()
		cc := dial(t, address, grpc.WithTransportCredentials(test.creds))
		_, err := testpb.NewTestServiceClient(cc).UnaryCall(testContext(t), &testpb.SimpleRequest{})
		if status.Code(err) != test.want {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if n := calls() - before; (n == 1) != (test.want == codes.OK) {
			t.Errorf("%s: %d calls were taken", name, n)
		}
	}
}

func clientTLS(t *testing.T, ca *grpcpooltest.CA, pair *grpcpooltest.KeyPair) credentials.TransportCredentials {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	config.RootCAs.AppendCertsFromPEM(ca.PEM)
	if pair != nil {
		c, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	return credentials.NewTLS(config)
}

func TestAProcessOfAnotherUserGetsNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells who connects")
	}
	target := backend(t, func(s *grpc.Server) { testpb.RegisterTestServiceServer(s, echoServer{}) })
	p := newProxy(t, target)
	path := filepath.Join(t.TempDir(), "other.sock")
	serve(t, p.Server, "unix", path, proxy.Access{UIDs: []uint32{uint32(os.Geteuid()) + 1}})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	if got, _ := io.ReadAll(conn); len(got) != 0 {
		t.Errorf("a stranger got %q", got)
	}
	if n := p.Stats().Calls(); n != 0 {
		t.Errorf("%d calls were taken", n)
	}
}

func TestASocketIsForItsUserFromTheBeginning(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ mode, want os.FileMode }{
		"default": {0, 0o600}, "0660": {0o660, 0o660}, "0666": {0o666, 0o666},
	} {
		l, err := proxy.Listen(t.Context(), "unix", filepath.Join(dir, name), proxy.Access{Mode: test.mode})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != test.want {
			t.Errorf("%s: mode %v, want %v", name, info.Mode(), test.want)
		}
		l.Close()
	}
}

func TestASocketLeftBehindIsRemovedAndOneInUseIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := proxy.Listen(t.Context(), "unix", path, proxy.Access{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Listen(t.Context(), "unix", path, proxy.Access{}); err == nil || !strings.Contains(err.Error(), "another process is listening") {
		t.Errorf("listening twice: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Listen(t.Context(), "unix", path, proxy.Access{}); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("listening on a file: %v", err)
	}
	if data, _ := os.ReadFile(path); string(data) != "precious" {
		t.Error("the file was changed")
	}
}

func TestWhatWouldLetStrangersInIsRefused(t *testing.T) {
	for _, test := range []struct {
		network, address string
		access           proxy.Access
		want             string
	}{
		{"tcp", "127.0.0.1:0", proxy.Access{}, "needs --token-file"},
		{"tcp", "127.0.0.1:0", proxy.Access{Token: "short"}, "at least 16"},
		{"tcp", "0.0.0.0:0", proxy.Access{Token: goodToken}, "not a loopback address"},
		{"tcp", "[::]:0", proxy.Access{Token: goodToken}, "not a loopback address"},
		{"tcp", ":0", proxy.Access{Token: goodToken}, "not a loopback address"},
		{"tcp", "192.0.2.1:0", proxy.Access{Token: goodToken}, "not a loopback address"},
		{"tcp", "example.com:1", proxy.Access{Token: goodToken}, "not a loopback address"},
	} {
		l, err := proxy.Listen(t.Context(), test.network, test.address, test.access)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %s: %v, want %q", test.network, test.address, err, test.want)
		}
	}
	wild, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.Inherit(wild, proxy.Access{Token: goodToken}); err == nil || !strings.Contains(err.Error(), "not a loopback") {
		t.Errorf("an inherited socket on all addresses: %v", err)
	}
	if wild.Close() == nil {
		t.Error("it was left open")
	}
}

func TestListenFlagsAreRead(t *testing.T) {
	for text, want := range map[string][2]string{
		"unix:///run/x.sock": {"unix", "/run/x.sock"},
		"unix:x.sock":        {"unix", "x.sock"},
		"127.0.0.1:80":       {"tcp", "127.0.0.1:80"},
		"tcp://[::1]:80":     {"tcp", "[::1]:80"},
		"tcp:localhost:80":   {"tcp", "localhost:80"},
		"unix://run/x.sock":  {},
		"unix:":              {},
		"/run/x.sock":        {},
		"127.0.0.1":          {},
		"":                   {},
	} {
		network, address, err := proxy.ParseListen(text)
		if network != want[0] || address != want[1] || (err != nil) != (want[0] == "") {
			t.Errorf("%q: %q %q %v, want %q", text, network, address, err, want)
		}
	}
}
