// Package trial runs the example programs in their tests.
package trial

import (
	"crypto/tls"
	"flag"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// newCerts makes the certificates of all servers here: a process reads the system's
// authorities once, so there can be only one more.
var newCerts = sync.OnceValues(func() (*grpcpooltest.Certs, error) { return grpcpooltest.NewCerts() })

// Server starts a server whose certificate this process trusts as it trusts the
// system's authorities.
func Server(t *testing.T, opts ...grpcpooltest.Option) *grpcpooltest.Server {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("SSL_CERT_FILE, which this test adds its authority with, works on Linux only")
	}
	certs, err := newCerts()
	if err != nil {
		t.Fatal(err)
	}
	files, err := certs.WriteFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", files.CA)
	cert, err := certs.Server.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	return grpcpooltest.NewServer(t, append(opts, grpcpooltest.WithTLS(config))...)
}

// Main runs a program's main with arguments, and returns what it prints.
func Main(t *testing.T, program func(), args ...string) string {
	t.Helper()
	defer func(flags *flag.FlagSet, args []string, stdout *os.File) {
		flag.CommandLine, os.Args, os.Stdout = flags, args, stdout
	}(flag.CommandLine, os.Args, os.Stdout)
	flag.CommandLine = flag.NewFlagSet("program", flag.ContinueOnError)
	os.Args = append([]string{"program"}, args...)

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	printed := make(chan string)
	go func() {
		text, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		printed <- string(text)
	}()
	program()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	return <-printed
}
