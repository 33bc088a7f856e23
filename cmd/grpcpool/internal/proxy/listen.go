package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

// Listener accepts a proxy's clients.
type Listener struct {
	net.Listener

	guard atomic.Pointer[guard]
}

func newListener(l net.Listener, g *guard) *Listener {
	listener := &Listener{Listener: l}
	listener.guard.Store(g)
	return listener
}

// Change changes who may connect from now on. A new token applies to calls on existing
// connections too. The mode of a socket's file does not change. After an error the old
// access stays.
func (l *Listener) Change(access Access) error {
	g, err := access.guard(l.Addr().Network())
	if err == nil {
		err = g.fits(l.Addr())
	}
	if err == nil {
		l.guard.Store(g)
	}
	return err
}

// Access says who may connect.
type Access struct {
	// UIDs are the users whose processes may connect to a Unix socket. Empty: the user
	// of this process. On systems that do not tell who connects they must be empty, and
	// only the socket's mode decides.
	UIDs []uint32

	// Mode is the mode of the Unix socket's file. 0: 0600.
	Mode fs.FileMode

	// Token must be in the metadata of calls over TCP, as
	// "proxy-authorization: Bearer <token>". It must have at least 16 bytes.
	Token string

	// TLS are credentials for TCP that require a client certificate.
	TLS credentials.TransportCredentials
}

const (
	minToken = 16
	unix     = "unix" // the network
)

// ParseListen returns the network and address of a --listen flag.
func ParseListen(text string) (network, address string, err error) {
	scheme, rest, ok := strings.Cut(text, ":")
	switch {
	case ok && scheme == unix:
		path := strings.TrimPrefix(rest, "//")
		if path == "" || strings.HasPrefix(rest, "//") && !filepath.IsAbs(path) {
			return "", "", fmt.Errorf("proxy: --listen %q: it must be unix:///absolute/path or unix:path", text)
		}
		return unix, path, nil
	case ok && scheme == "tcp":
		text = strings.TrimPrefix(rest, "//")
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return "", "", fmt.Errorf("proxy: --listen %q: it must be unix:///path or host:port: %w", text, err)
	}
	return "tcp", text, nil
}

// Listen listens for clients on "unix" and a path, or "tcp" and an address. It refuses
// what would let strangers in: TCP without a token or TLS, and TCP without TLS on an
// address that is not loopback.
func Listen(ctx context.Context, network, address string, access Access) (*Listener, error) {
	g, err := access.guard(network)
	if err != nil {
		return nil, err
	}
	if network == unix {
		l, err := listenUnix(ctx, address, access.Mode)
		if err != nil {
			return nil, err
		}
		return newListener(l, g), nil
	}
	if g.tls == nil {
		if err := wantLoopback(address); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("proxy: --listen: %w", err)
	}
	return Inherit(l, access) // checks again: localhost may resolve to any address
}

// Inherit is Listen for a socket that already listens, such as one from systemd. If it
// returns an error, it has closed l.
func Inherit(l net.Listener, access Access) (*Listener, error) {
	g, err := access.guard(l.Addr().Network())
	if err == nil {
		err = g.fits(l.Addr())
	}
	if err != nil {
		_ = l.Close() // the error that is reported is err
		return nil, err
	}
	return newListener(l, g), nil
}

func (a Access) guard(network string) (*guard, error) {
	if network == unix {
		g := &guard{uids: a.UIDs}
		switch {
		case !canCheckUID && len(a.UIDs) > 0:
			return nil, errors.New("proxy: this system does not tell which user connects; leave out --allow-uid, and restrict access by --socket-mode")
		case canCheckUID && len(a.UIDs) == 0:
			g.uids = []uint32{uint32(os.Geteuid())} //nolint:gosec // a uid is not negative where it can be checked
		}
		return g, nil
	}
	g := &guard{tls: a.TLS}
	if a.Token != "" {
		if len(a.Token) < minToken {
			return nil, fmt.Errorf("proxy: the token has %d bytes; it must have at least %d", len(a.Token), minToken)
		}
		hash := sha256.Sum256([]byte(a.Token))
		g.token = &hash
	}
	if g.tls == nil && g.token == nil {
		return nil, errors.New("proxy: a TCP --listen address needs --token-file, or --listen-cert, --listen-key and --listen-ca; otherwise any user of this machine could connect")
	}
	return g, nil
}

// fits reports an error if g is not strict enough for an address.
func (g *guard) fits(a net.Addr) error {
	if a.Network() == unix || g.tls != nil {
		return nil
	}
	return wantLoopback(a.String())
}

func wantLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("proxy: --listen %q: %w", address, err)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost") {
		return nil
	}
	return fmt.Errorf("proxy: --listen %q is not a loopback address, and without TLS others could read the traffic; listen on 127.0.0.1 or [::1], or use --listen-cert, --listen-key and --listen-ca", address)
}

// listenUnix creates the socket, with its mode from the start. It first removes a socket
// left behind by a process that is gone.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	if mode == 0 {
		mode = 0o600
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	restore := umask(0o777 &^ mode)
	l, err := new(net.ListenConfig).Listen(ctx, unix, path)
	restore()
	if err != nil {
		return nil, fmt.Errorf("proxy: --listen: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close() // the error that is reported is err
		return nil, fmt.Errorf("proxy: --listen: %w", err)
	}
	return l, nil
}

func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("proxy: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("proxy: --listen: %s exists and is not a socket; remove it, or choose another path", path)
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, unix, path)
	if err == nil {
		_ = conn.Close() // it was only to check whether anything is listening
		return fmt.Errorf("proxy: --listen: another process is listening on %s; stop it, or choose another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("proxy: --listen: checking whether another process is listening on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("proxy: --listen: removing a stale socket: %w", err)
	}
	return nil
}
