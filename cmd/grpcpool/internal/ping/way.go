package ping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
)

// way finds the way to a server that a channel takes, by being the credentials of
// one: whatever gRPC does to reach the server (resolvers, addresses in turn, proxies of
// the environment, Unix sockets) leads to ClientHandshake. There the connection is
// looked at, and closed.
type way struct {
	target Target

	begun time.Time
	found func() // called when a connection has shown all that it had to

	mu        sync.Mutex     // guards what follows
	closed    bool           // no further connection is looked at
	looking   sync.WaitGroup // connections that are looked at
	addresses []string
	resolved  time.Time // when they were
	best      *Findings // nil: nothing was reached
	failure   error     // of best; nil: there is none, best is complete
}

// errLookedAt is what gRPC is told of a connection that was looked at.
var errLookedAt = errors.New("ping: it has shown what it had to show")

// take connects, and returns what was found. With an error that is what was found
// until then.
func (w *way) take(ctx context.Context) (*Findings, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.begun, w.found = time.Now(), cancel
	opts := []grpc.DialOption{grpc.WithTransportCredentials(w)}
	if b := w.observed(); b != nil {
		opts = append(opts, grpc.WithResolvers(b))
	}
	if w.target.Name != "" {
		opts = append(opts, grpc.WithAuthority(w.target.Name))
	}
	cc, err := grpc.NewClient(w.target.Address, opts...)
	if err != nil {
		return &Findings{}, fmt.Errorf("ping: %q: %w", w.target.Address, err)
	}
	err = connectOnce(ctx, cc)
	_ = cc.Close() // it never was READY
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.looking.Wait() // Close has ended their contexts
	return w.result(err)
}

// connectOnce returns why cc could not connect, when it has tried everything once, or
// that ctx has ended.
func connectOnce(ctx context.Context, cc *grpc.ClientConn) error {
	cc.Connect()
	for state := cc.GetState(); ; state = cc.GetState() {
		if state == connectivity.TransientFailure {
			// An RPC is told why, and only an RPC.
			_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{}, answer.Fixed()...)
			return err //nolint:wrapcheck // result wraps it
		}
		if !cc.WaitForStateChange(ctx, state) {
			return ctx.Err() //nolint:wrapcheck // likewise
		}
	}
}

// result is what was found, given why the channel is not connected. No connection is
// looked at any more.
func (w *way) result(err error) (*Findings, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.best == nil {
		return &Findings{Addresses: w.addresses, Proxy: w.proxy()}, &unreachedError{err}
	}
	w.best.Addresses = w.addresses
	return w.best, w.failure // of which err has the words only
}

// unreachedError is a channel's error without the words that make an RPC's of it.
type unreachedError struct{ err error }

func (e *unreachedError) Error() string {
	if st, ok := status.FromError(e.err); ok {
		return "ping: " + st.Message()
	}
	return "ping: " + e.err.Error()
}

func (e *unreachedError) Unwrap() error { return e.err }

// ClientHandshake implements credentials.TransportCredentials.
func (w *way) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	f := w.reached(raw)
	if f == nil {
		return nil, nil, errLookedAt
	}
	defer w.looking.Done()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := f.look(ctx, w.target.TLS, authority, raw)
	_ = raw.Close() // it has shown what it had to show
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.best == nil || w.failure != nil { // the last one, or the first that was good
		w.best, w.failure = f, err
	}
	if err == nil {
		w.closed = true
		w.found()
		return nil, nil, errLookedAt
	}
	return nil, nil, err
}

// reached notes a connection, or returns nil if it is one too many.
func (w *way) reached(raw net.Conn) *Findings {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.looking.Add(1)
	since := w.begun
	if !w.resolved.IsZero() {
		since = w.resolved
	}
	f := &Findings{Connected: raw.RemoteAddr().String(), Connect: milliseconds(time.Since(since))}
	if raw.RemoteAddr().Network() == "tcp" {
		f.Proxy = w.proxy()
	}
	return f
}

// proxy is the proxy that gRPC takes to the target, as the environment says, or "".
func (w *way) proxy() string {
	endpoint := w.target.Address
	if u, ok := schemeOf(endpoint); ok {
		if strings.HasPrefix(u.Scheme, "unix") {
			return ""
		}
		endpoint = (resolver.Target{URL: *u}).Endpoint()
	}
	by, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: endpoint}})
	if err != nil || by == nil {
		return ""
	}
	return by.Host
}

// Info implements credentials.TransportCredentials.
func (w *way) Info() credentials.ProtocolInfo {
	if w.target.TLS == nil {
		return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (w *way) Clone() credentials.TransportCredentials { return w }

// ServerHandshake implements credentials.TransportCredentials.
func (*way) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("ping: not for servers")
}

// OverrideServerName implements credentials.TransportCredentials.
func (*way) OverrideServerName(string) error { return nil }

// schemeOf parses a target as gRPC does: it is a URL if there is a resolver for its
// scheme.
func schemeOf(target string) (*url.URL, bool) {
	u, err := url.Parse(target)
	return u, err == nil && resolver.Get(u.Scheme) != nil
}

// checkTarget finds the mistakes in a target that gRPC would take for a name.
func checkTarget(target string) error {
	if _, ok := schemeOf(target); ok {
		return nil
	}
	_, _, err := net.SplitHostPort(target)
	name := !strings.Contains(target, ":") || net.ParseIP(strings.Trim(target, "[]")) != nil // gRPC adds the port 443
	if target == "" || strings.Contains(target, "/") || err != nil && !name {
		return fmt.Errorf("ping: %q: want host:port, or a gRPC target such as dns:///host:port or unix:///path", target)
	}
	return nil
}

// observed is the resolver of the target, which notes the addresses that it finds.
func (w *way) observed() resolver.Builder {
	scheme := "dns"
	if u, ok := schemeOf(w.target.Address); ok {
		scheme = u.Scheme
	}
	builder := resolver.Get(scheme)
	if builder == nil {
		return nil
	}
	noting := notingBuilder{builder, w}
	if named, ok := builder.(resolver.AuthorityOverrider); ok {
		return struct {
			notingBuilder
			resolver.AuthorityOverrider
		}{noting, named}
	}
	return noting
}

type notingBuilder struct {
	resolver.Builder

	way *way
}

// Build implements resolver.Builder.
func (b notingBuilder) Build(target resolver.Target, cc resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	return b.Builder.Build(target, notingConn{cc, b.way}, opts) //nolint:wrapcheck // it is gRPC's to report
}

type notingConn struct {
	resolver.ClientConn

	way *way
}

// UpdateState implements resolver.ClientConn.
func (c notingConn) UpdateState(state resolver.State) error {
	var all []string
	for _, e := range state.Endpoints {
		for _, a := range e.Addresses {
			all = append(all, a.Addr)
		}
	}
	for _, a := range state.Addresses {
		if !slices.Contains(all, a.Addr) {
			all = append(all, a.Addr)
		}
	}
	c.way.mu.Lock()
	c.way.addresses, c.way.resolved = all, time.Now()
	c.way.mu.Unlock()
	return c.ClientConn.UpdateState(state) //nolint:wrapcheck // likewise
}
