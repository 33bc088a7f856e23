package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// door is the credentials of a server: a TLS configuration that can be changed, and a
// list of the clients that are connected.
type door struct {
	credentials.TransportCredentials

	mu      sync.Mutex // guards what follows
	config  *tls.Config
	inside  map[net.Conn]string // the serial number of the certificate each open connection has shown
	seen    map[string]int      // how many connections have shown it
	refused []error
	changed chan struct{} // closed when inside or refused changes, and made anew
}

// openDoor returns a door for clients with a certificate of the authority.
func openDoor(t testing.TB, clients *pki.CA, server pki.Pair) *door {
	t.Helper()
	d := &door{inside: make(map[net.Conn]string), seen: make(map[string]int), changed: make(chan struct{})}
	d.set(t, server, clients)
	d.TransportCredentials = credentials.NewTLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.config, nil
	}})
	return d
}

// set changes the server's certificate, and the authorities whose clients it accepts.
func (d *door) set(t testing.TB, server pki.Pair, clients ...*pki.CA) {
	t.Helper()
	config := withH2(serverTLS(t, clients[0], server))
	for _, ca := range clients[1:] {
		config.ClientCAs.AppendCertsFromPEM(ca.PEM)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config = config
}

func (d *door) Clone() credentials.TransportCredentials { return d }

func (d *door) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := d.TransportCredentials.ServerHandshake(raw)
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.changeLocked()
	if err != nil {
		if !left(err) {
			d.refused = append(d.refused, err)
		}
		return nil, nil, err
	}
	leaf := info.(credentials.TLSInfo).State.PeerCertificates[0]
	serial := fmt.Sprintf("%x", leaf.SerialNumber)
	d.seen[serial]++
	entered := &guest{Conn: conn, door: d}
	d.inside[entered] = serial
	return entered, info, nil
}

// left reports whether the client closed its channel during the handshake.
func left(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (d *door) changeLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// guest is a connection that is in the door's list until it is closed.
type guest struct {
	net.Conn

	door *door
}

func (g *guest) Close() error {
	g.door.mu.Lock()
	delete(g.door.inside, g)
	g.door.changeLocked()
	g.door.mu.Unlock()
	return g.Conn.Close()
}

// waitUntilAllShow waits until there are connections and all have shown the
// certificate.
func (d *door) waitUntilAllShow(ctx context.Context, t testing.TB, serial string) {
	t.Helper()
	for {
		d.mu.Lock()
		inside, changed := slices.Collect(maps.Values(d.inside)), d.changed
		d.mu.Unlock()
		if len(inside) > 0 && !slices.ContainsFunc(inside, func(s string) bool { return s != serial }) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the connections show %q, want only %q", inside, serial)
		}
	}
}

// open is how many connections show which certificate.
func (d *door) open() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	counts := make(map[string]int)
	for _, serial := range d.inside {
		counts[serial]++
	}
	return counts
}

// shown is how many connections have ever shown a certificate.
func (d *door) shown(serial string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[serial]
}

func (d *door) wantNobodyRefused(t testing.TB) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, err := range d.refused {
		t.Errorf("the server refused a handshake: %v", err)
	}
}

// startBehind starts a server behind d.
func startBehind(t testing.TB, d *door, config grpctest.Config) *grpctest.Server {
	t.Helper()
	config.Options = append(config.Options, grpc.Creds(d))
	return grpctest.Start(t, config)
}

func serialOf(t testing.TB, pair pki.Pair) string {
	t.Helper()
	return fmt.Sprintf("%x", leafOf(t, pair).SerialNumber)
}

func leafOf(t testing.TB, pair pki.Pair) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(pair.CertPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func newCA(t testing.TB, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// certFiles are the three files of a client, and a way to replace them.
type certFiles struct {
	dir, ca, cert, key string

	turns   int // of asKubernetes
	replace func(t testing.TB, f *certFiles, contents map[string][]byte)
}

// writeFiles puts the client's files of l into a new directory.
func writeFiles(t testing.TB, l *pki.Localhost, replace func(testing.TB, *certFiles, map[string][]byte)) *certFiles {
	t.Helper()
	f := &certFiles{dir: t.TempDir(), replace: replace}
	f.ca, f.cert, f.key = filepath.Join(f.dir, "ca.crt"), filepath.Join(f.dir, "tls.crt"), filepath.Join(f.dir, "tls.key")
	f.put(t, l.CA.PEM, l.Client)
	return f
}

func (f *certFiles) put(t testing.TB, caPEM []byte, client pki.Pair) {
	t.Helper()
	f.replace(t, f, map[string][]byte{"ca.crt": caPEM, "tls.crt": client.CertPEM, "tls.key": client.KeyPEM})
}

var fileOrder = []string{"ca.crt", "tls.crt", "tls.key"}

// inPlace writes over the files, one after the other and each in two halves.
func inPlace(t testing.TB, f *certFiles, contents map[string][]byte) {
	t.Helper()
	for _, name := range fileOrder {
		file, err := os.Create(filepath.Join(f.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		half := len(contents[name]) / 2
		for _, part := range [][]byte{contents[name][:half], contents[name][half:]} {
			if _, err := file.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// byRename puts each file in the place of the old one whole.
func byRename(t testing.TB, f *certFiles, contents map[string][]byte) {
	t.Helper()
	for _, name := range fileOrder {
		path := filepath.Join(f.dir, name)
		write(t, path+".new", contents[name])
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

// asKubernetes does what the kubelet does with a mounted secret: the files are
// symlinks through ..data, which is a symlink that is replaced by one to a new
// directory; then the old one is removed.
func asKubernetes(t testing.TB, f *certFiles, contents map[string][]byte) {
	t.Helper()
	data := filepath.Join(f.dir, "..data")
	old, _ := os.Readlink(data) // there is none at first
	f.turns++
	fresh := filepath.Join(f.dir, fmt.Sprintf("..2026_%d", f.turns))
	if err := os.Mkdir(fresh, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range contents {
		write(t, filepath.Join(fresh, name), content)
		if old == "" {
			symlink(t, filepath.Join("..data", name), filepath.Join(f.dir, name))
		}
	}
	symlink(t, filepath.Base(fresh), data+"_tmp")
	if err := os.Rename(data+"_tmp", data); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(f.dir, old)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func symlink(t testing.TB, to, from string) {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		t.Fatal(err)
	}
}
