package identity_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// A channel with certificates that cert-manager, Vault's agent or a cron job renews in
// their files.
func ExampleFromFiles() {
	dir, ca, address, stop := startServerAndWriteFiles()
	defer stop()

	provider, err := identity.FromFiles(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		log.Panic(err)
	}
	defer provider.Close()
	conn, err := scale.NewClient(address, provider.DialOption())
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(answer.GetStatus(), "as", provider.Info().Subject)

	// New files are noticed within ten seconds, while there is a channel. Reload does
	// not wait for that.
	writeClient(dir, ca, "renewed")
	if err := provider.Reload(context.Background()); err != nil {
		log.Panic(err)
	}
	fmt.Println(provider.Info().Subject)
	// Output:
	// SERVING as CN=client
	// CN=renewed
}

// One provider for the pools of several servers.
func ExampleProvider() {
	dir, _, address, stop := startServerAndWriteFiles()
	defer stop()

	provider, err := identity.FromFiles(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		log.Panic(err)
	}
	defer provider.Close()
	for _, server := range []string{address, address} {
		factory, err := grpcpool.NewIdentityFactory(server, provider)
		if err != nil {
			log.Panic(err)
		}
		pool := shared.New(factory, 5*time.Minute)
		defer pool.Close()
		answer, err := healthpb.NewHealthClient(pool).Check(context.Background(), &healthpb.HealthCheckRequest{})
		if err != nil {
			log.Panic(err)
		}
		fmt.Println(answer.GetStatus(), "as", pool.Stats().Identity.Subject)
	}
	// Output:
	// SERVING as CN=client
	// SERVING as CN=client
}

// Certificates from a secret store.
func ExampleFromSource() {
	dir, _, address, stop := startServerAndWriteFiles()
	defer stop()

	secretStore := func(context.Context) (identity.Identity, error) {
		// A program asks its secret store here, or returns what it last heard from it.
		cert, err := identity.ParseKeyPair(mustRead(filepath.Join(dir, "tls.crt")), mustRead(filepath.Join(dir, "tls.key")))
		if err != nil {
			return identity.Identity{}, err
		}
		roots, err := identity.ParseRoots(mustRead(filepath.Join(dir, "ca.crt")))
		if err != nil {
			return identity.Identity{}, err
		}
		return identity.Identity{Certificate: cert, Roots: roots}, nil
	}
	provider, err := identity.FromSource(secretStore)
	if err != nil {
		log.Panic(err)
	}
	factory, err := grpcpool.NewIdentityFactory(address, provider)
	if err != nil {
		log.Panic(err)
	}
	conn, err := factory.NewConnection(context.Background())
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	fmt.Println(conn.GetState(), "as", provider.Info().Subject)
	// Output: READY as CN=client
}

// A server reads its certificate, and the authorities of its clients, from PEM that was
// written by hand on Windows.
func ExampleParseKeyPair() {
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		log.Panic(err)
	}
	onWindows := func(text []byte) []byte {
		return []byte("\ufeff" + strings.ReplaceAll(string(text), "\n", "\r\n"))
	}

	pair, err := identity.ParseKeyPair(onWindows(certs.Server.CertPEM), onWindows(certs.Server.KeyPEM))
	if err != nil {
		log.Panic(err)
	}
	clients, err := identity.ParseRoots(onWindows(certs.CA.PEM))
	if err != nil {
		log.Panic(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	})))
	defer server.Stop()
	fmt.Println(pair.Leaf.Subject)
	// Output: CN=server
}

// A mistake in a PEM text is named, and what to do about it.
func ExampleParseRoots() {
	_, err := identity.ParseRoots([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	fmt.Println(err)
	// Output:
	// identity: caPEM: holds no certificate, only "CERTIFICATE REQUEST"; a request is not a certificate: an authority has to sign it first
}

// Accept only servers whose chain has a certain key.
func ExampleWithPinnedKeys() {
	dir, _, address, stop := startServerAndWriteFiles()
	defer stop()

	authority, _ := pem.Decode(mustRead(filepath.Join(dir, "ca.crt")))
	cert, err := x509.ParseCertificate(authority.Bytes)
	if err != nil {
		log.Panic(err)
	}
	hash := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	pin := "sha256/" + base64.StdEncoding.EncodeToString(hash[:])
	tryWith(dir, address, identity.WithPinnedKeys(pin))

	tryWith(dir, address, identity.WithPinnedKeys("sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="))
	// Output:
	// connected
	// refused: pin mismatch
}

// A check of the program's own.
func ExampleWithVerifyConnection() {
	dir, _, address, stop := startServerAndWriteFiles()
	defer stop()

	tryWith(dir, address, identity.WithVerifyConnection(func(state tls.ConnectionState) error {
		if leaf := state.PeerCertificates[0]; leaf.NotAfter.Sub(leaf.NotBefore) > 90*24*time.Hour {
			return errors.New("the certificate is valid for too long")
		}
		return nil
	}))
	// Output: connected
}

// Refuse servers that a revocation list names, and, with true, those that no list covers.
func ExampleWithCRLFiles() {
	dir, ca, address, stop := startServerAndWriteFiles()
	defer stop()

	list, err := ca.RevocationList(time.Now().Add(time.Hour))
	if err != nil {
		log.Panic(err)
	}
	path := filepath.Join(dir, "ca.crl")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		log.Panic(err)
	}
	tryWith(dir, address, identity.WithCRLFiles(true, path))
	// Output: connected
}

// tryWith prints whether a channel with opt connects.
func tryWith(dir, address string, opt identity.Option) {
	provider, err := identity.FromFiles(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), opt)
	if err != nil {
		log.Panic(err)
	}
	conn, err := scale.NewClient(address, provider.DialOption())
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	switch {
	case err == nil:
		fmt.Println("connected")
	case strings.Contains(err.Error(), "pin mismatch"):
		fmt.Println("refused: pin mismatch")
	default:
		fmt.Println(err)
	}
}

// startServerAndWriteFiles starts a server on localhost that wants certificates of
// the authority, and writes the files of a client into a new directory.
func startServerAndWriteFiles() (dir string, ca *grpcpooltest.CA, address string, stop func()) {
	l, err := grpcpooltest.NewCerts()
	if err != nil {
		log.Fatal(err)
	}
	config, err := l.CA.ServerConfig(l.Server)
	if err != nil {
		log.Fatal(err)
	}
	lis, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() {
		if err := server.Serve(lis); err != nil {
			log.Print(err)
		}
	}()
	_, port, err := net.SplitHostPort(lis.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	dir, err = os.MkdirTemp("", "grpcpool-example-")
	if err != nil {
		log.Panic(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), l.CA.PEM, 0o600); err != nil {
		log.Panic(err)
	}
	writeClient(dir, l.CA, "client")
	return dir, l.CA, net.JoinHostPort("localhost", port), func() {
		server.Stop()
		_ = os.RemoveAll(dir)
	}
}

// writeClient issues a certificate and puts it in the client's files.
func writeClient(dir string, ca *grpcpooltest.CA, name string) {
	pair, err := ca.Issue(grpcpooltest.CertRequest{CommonName: name})
	if err != nil {
		log.Panic(err)
	}
	for file, content := range map[string][]byte{"tls.crt": pair.CertPEM, "tls.key": pair.KeyPEM} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			log.Panic(err)
		}
	}
}

func mustRead(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		log.Panic(err)
	}
	return content
}
