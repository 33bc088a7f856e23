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

// Listener accepts the clients of a proxy.
type Listener struct {
	net.Listener

	guard atomic.Pointer[guard]
}

func newListener(l net.Listener, g *guard) *Listener {
	listener := &Listener{Listener: l}
	listener.guard.Store(g)
	return listener
}

// Change makes l admit others from now on: connections and, as far as a token is
// concerned, calls. The file's mode stays. After an error all is as before.
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

// Access says who may be a client.
type Access struct {
	// UIDs are the users whose processes may connect to a Unix socket. Empty: the
	// one that this process runs as. Where the system does not tell who connects,
	// they must be empty, and the socket's mode decides alone.
	UIDs []uint32

	// Mode is of the Unix socket's file. 0: 0600.
	Mode fs.FileMode

	// Token is what calls over TCP must bring in their metadata, as
	// "proxy-authorization: Bearer <token>". It must have 16 bytes or more.
	Token string

	// TLS are credentials that demand a client certificate, for TCP.
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
			return "", "", fmt.Errorf("proxy: listen %q: want unix:///absolute/path or unix:path", text)
		}
		return unix, path, nil
	case ok && scheme == "tcp":
		text = strings.TrimPrefix(rest, "//")
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return "", "", fmt.Errorf("proxy: listen %q: want unix:///path or host:port: %w", text, err)
	}
	return "tcp", text, nil
}

// Listen listens for clients on unix and a path, or "tcp" and an address. What
// would let strangers in is refused: TCP without a token or TLS, and TCP without
// TLS on an address that is not loopback.
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
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return Inherit(l, access) // once more: localhost may be anything
}

// Inherit is Listen for a socket that is there already, such as systemd's. It
// closes l if it returns an error.
func Inherit(l net.Listener, access Access) (*Listener, error) {
	g, err := access.guard(l.Addr().Network())
	if err == nil {
		err = g.fits(l.Addr())
	}
	if err != nil {
		_ = l.Close() // not wanted
		return nil, err
	}
	return newListener(l, g), nil
}

func (a Access) guard(network string) (*guard, error) {
	if network == unix {
		g := &guard{uids: a.UIDs}
		switch {
		case !canCheckUID && len(a.UIDs) > 0:
			return nil, errors.New("proxy: this system does not tell which user connects: leave the users out and let the socket's mode decide")
		case canCheckUID && len(a.UIDs) == 0:
			g.uids = []uint32{uint32(os.Geteuid())} //nolint:gosec // a uid is not negative where it can be checked
		}
		return g, nil
	}
	g := &guard{tls: a.TLS}
	if a.Token != "" {
		if len(a.Token) < minToken {
			return nil, fmt.Errorf("proxy: the token has %d bytes, want %d or more", len(a.Token), minToken)
		}
		hash := sha256.Sum256([]byte(a.Token))
		g.token = &hash
	}
	if g.tls == nil && g.token == nil {
		return nil, errors.New("proxy: TCP needs a token or mutual TLS: every user of this machine could connect otherwise")
	}
	return g, nil
}

// fits says whether g is enough of a guard for an address.
func (g *guard) fits(a net.Addr) error {
	if a.Network() == unix || g.tls != nil {
		return nil
	}
	return wantLoopback(a.String())
}

func wantLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("proxy: listen %q: %w", address, err)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost") {
		return nil
	}
	return fmt.Errorf("proxy: %q is not a loopback address, and without TLS what is sent could be read on the way: listen on 127.0.0.1 or [::1], or with mutual TLS", address)
}

// listenUnix makes the socket with its mode from the beginning. A socket that a
// process which is gone has left behind is removed.
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
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close() // what matters is why it is not wanted
		return nil, fmt.Errorf("proxy: %w", err)
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
		return fmt.Errorf("proxy: listen: %s is there already and is no socket", path)
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, unix, path)
	if err == nil {
		_ = conn.Close() // it was only to see whether somebody is there
		return fmt.Errorf("proxy: listen: another process listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("proxy: listen: whether somebody listens on %s already: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("proxy: removing the socket that nobody listens on: %w", err)
	}
	return nil
}
