package grpcpool_test

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
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/pki"
	"github.com/davidwartell/go-grpcpool/shared"
)

// Certificates that cert-manager, Vault's agent or a cron job renews in their
// files.
func ExampleNewMutualTLSFactoryFromFiles() {
	dir, ca, address, stop := startServerAndWriteFiles()
	defer stop()

	factory, err := grpcpool.NewMutualTLSFactoryFromFiles(
		filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), address)
	if err != nil {
		log.Panic(err)
	}
	pool := shared.New(factory, 5*time.Minute)
	defer pool.Close()
	fmt.Println(pool.Stats().Identity.Subject)

	// New files are noticed within ten seconds, while a channel is open. Who does
	// not want to wait for that says so.
	writeClient(dir, ca, "renewed")
	if err := factory.Reload(context.Background()); err != nil {
		log.Panic(err)
	}
	fmt.Println(pool.Stats().Identity.Subject)
	// Output:
	// CN=client
	// CN=renewed
}

// Certificates that come from somewhere else than files.
func ExampleWithCertificateSource() {
	dir, _, address, stop := startServerAndWriteFiles()
	defer stop()

	secretStore := func(context.Context) (grpcpool.Identity, error) {
		// A program asks its secret store here, or what it last heard from it.
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		if err != nil {
			return grpcpool.Identity{}, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(mustRead(filepath.Join(dir, "ca.crt")))
		return grpcpool.Identity{Certificate: cert, Roots: roots}, nil
	}
	factory, err := grpcpool.NewMutualTLSFactory(nil, nil, nil, address, 30*time.Second, 10*time.Second, nil,
		grpcpool.WithCertificateSource(secretStore))
	if err != nil {
		log.Panic(err)
	}
	conn, err := factory.NewConnection(context.Background())
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	fmt.Println(conn.GetState(), "as", factory.Identity().Subject)
	// Output: READY as CN=client
}

// Only servers whose chain has a certain key.
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
	tryWith(dir, address, grpcpool.WithPinnedKeys(pin))

	tryWith(dir, address, grpcpool.WithPinnedKeys("sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="))
	// Output:
	// connected
	// refused: pin mismatch
}

// A check of the program's own.
func ExampleWithVerifyConnection() {
	dir, _, address, stop := startServerAndWriteFiles()
	defer stop()

	tryWith(dir, address, grpcpool.WithVerifyConnection(func(state tls.ConnectionState) error {
		if leaf := state.PeerCertificates[0]; leaf.NotAfter.Sub(leaf.NotBefore) > 90*24*time.Hour {
			return errors.New("the certificate is valid for too long")
		}
		return nil
	}))
	// Output: connected
}

// Revocation lists: a server that one names is refused, and, with true, also one of
// which none knows.
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
	tryWith(dir, address, grpcpool.WithCRLFiles(true, path))
	// Output: connected
}

// tryWith prints whether a factory with opt connects.
func tryWith(dir, address string, opt grpcpool.FactoryOption) {
	factory, err := grpcpool.NewMutualTLSFactoryFromFiles(
		filepath.Join(dir, "ca.crt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), address, opt)
	if err != nil {
		log.Panic(err)
	}
	conn, err := factory.NewConnection(context.Background())
	switch {
	case err == nil:
		fmt.Println("connected")
		_ = conn.Close()
	case strings.Contains(err.Error(), "pin mismatch"):
		fmt.Println("refused: pin mismatch")
	default:
		fmt.Println(err)
	}
}

// startServerAndWriteFiles starts a server on localhost that wants certificates of
// the authority, and writes the files of a client into a new directory.
func startServerAndWriteFiles() (dir string, ca *pki.CA, address string, stop func()) {
	l, address, stopServer := startLocalhost("localhost:0")
	dir, err := os.MkdirTemp("", "grpcpool-example-")
	if err != nil {
		log.Panic(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), l.CA.PEM, 0o600); err != nil {
		log.Panic(err)
	}
	writeClient(dir, l.CA, "client")
	return dir, l.CA, address, func() {
		stopServer()
		_ = os.RemoveAll(dir)
	}
}

// writeClient issues a certificate and puts it in the client's files.
func writeClient(dir string, ca *pki.CA, name string) {
	pair, err := ca.Issue(pki.Request{CommonName: name})
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
