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

// inspector connects to a server exactly as a channel does, by being the credentials of
// one: whatever gRPC does to reach the server (resolvers, several addresses, HTTP proxies
// of the environment, Unix sockets) leads to ClientHandshake. There the connection is
// inspected, and closed.
type inspector struct {
	target Target

	begun time.Time
	found func() // called when a connection has been inspected successfully

	mu         sync.Mutex     // guards what follows
	closed     bool           // no further connection is inspected
	inspecting sync.WaitGroup // connections that are being inspected
	addresses  []string
	resolved   time.Time // when they were
	best       *Findings // nil: nothing was reached
	failure    error     // of best; nil: best is complete
}

// errInspected ends gRPC's handshake on a connection that was inspected.
var errInspected = errors.New("ping: the connection was inspected")

// inspect connects, and returns what was found, with an error as well.
func (i *inspector) inspect(ctx context.Context) (*Findings, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	i.begun, i.found = time.Now(), cancel
	opts := []grpc.DialOption{grpc.WithTransportCredentials(i)}
	if b := i.observed(); b != nil {
		opts = append(opts, grpc.WithResolvers(b))
	}
	if i.target.Name != "" {
		opts = append(opts, grpc.WithAuthority(i.target.Name))
	}
	cc, err := grpc.NewClient(i.target.Address, opts...)
	if err != nil {
		return &Findings{}, fmt.Errorf("ping: %q: %w", i.target.Address, err)
	}
	err = connectOnce(ctx, cc)
	_ = cc.Close() // it was never READY
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.inspecting.Wait() // Close has ended their contexts
	return i.result(err)
}

// connectOnce returns when cc has tried all addresses once, with the reason why it could
// not connect, or when ctx has ended.
func connectOnce(ctx context.Context, cc *grpc.ClientConn) error {
	cc.Connect()
	for state := cc.GetState(); ; state = cc.GetState() {
		if state == connectivity.TransientFailure {
			// Only an RPC is told why.
			_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{}, answer.Fixed()...)
			return err //nolint:wrapcheck // result wraps it
		}
		if !cc.WaitForStateChange(ctx, state) {
			return ctx.Err() //nolint:wrapcheck // likewise
		}
	}
}

// result returns what was found. err is why the channel is not connected. No connection
// is being inspected any more.
func (i *inspector) result(err error) (*Findings, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.best == nil {
		return &Findings{Addresses: i.addresses, Proxy: i.proxy()}, &unreachedError{err}
	}
	i.best.Addresses = i.addresses
	return i.best, i.failure // of which err has only the text
}

// unreachedError is a channel's error without the text that marks it as an RPC's.
type unreachedError struct{ err error }

func (e *unreachedError) Error() string {
	if st, ok := status.FromError(e.err); ok {
		return "ping: " + st.Message()
	}
	return "ping: " + e.err.Error()
}

func (e *unreachedError) Unwrap() error { return e.err }

// ClientHandshake implements credentials.TransportCredentials.
func (i *inspector) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	f := i.reached(raw)
	if f == nil {
		return nil, nil, errInspected
	}
	defer i.inspecting.Done()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := f.inspect(ctx, i.target.TLS, authority, raw)
	_ = raw.Close() // it is not used any more
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.best == nil || i.failure != nil { // keep the first that succeeds, or else the last
		i.best, i.failure = f, err
	}
	if err == nil {
		i.closed = true
		i.found()
		return nil, nil, errInspected
	}
	return nil, nil, err
}

// reached notes a connection, or returns nil if no more are inspected.
func (i *inspector) reached(raw net.Conn) *Findings {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	i.inspecting.Add(1)
	since := i.begun
	if !i.resolved.IsZero() {
		since = i.resolved
	}
	f := &Findings{Connected: raw.RemoteAddr().String(), Connect: milliseconds(time.Since(since))}
	if raw.RemoteAddr().Network() == "tcp" {
		f.Proxy = i.proxy()
	}
	return f
}

// proxy returns the HTTP proxy of the environment that gRPC uses for the target, or "".
func (i *inspector) proxy() string {
	endpoint := i.target.Address
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
func (i *inspector) Info() credentials.ProtocolInfo {
	if i.target.TLS == nil {
		return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (i *inspector) Clone() credentials.TransportCredentials { return i }

// ServerHandshake implements credentials.TransportCredentials.
func (*inspector) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("ping: these credentials are for clients only")
}

// OverrideServerName implements credentials.TransportCredentials.
func (*inspector) OverrideServerName(string) error { return nil }

// schemeOf parses a target as gRPC does: it is a URL if its scheme has a resolver.
func schemeOf(target string) (*url.URL, bool) {
	u, err := url.Parse(target)
	return u, err == nil && resolver.Get(u.Scheme) != nil
}

// checkTarget rejects malformed targets that gRPC would take for host names.
func checkTarget(target string) error {
	if _, ok := schemeOf(target); ok {
		return nil
	}
	_, _, err := net.SplitHostPort(target)
	name := !strings.Contains(target, ":") || net.ParseIP(strings.Trim(target, "[]")) != nil // gRPC adds the port 443
	if target == "" || strings.Contains(target, "/") || err != nil && !name {
		return fmt.Errorf("ping: %q: the server must be host:port, or a gRPC target such as dns:///host:port or unix:///path", target)
	}
	return nil
}

// observed returns the resolver of the target, made to note the addresses it finds.
func (i *inspector) observed() resolver.Builder {
	scheme := "dns"
	if u, ok := schemeOf(i.target.Address); ok {
		scheme = u.Scheme
	}
	builder := resolver.Get(scheme)
	if builder == nil {
		return nil
	}
	noting := notingBuilder{builder, i}
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

	inspector *inspector
}

// Build implements resolver.Builder.
func (b notingBuilder) Build(target resolver.Target, cc resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	return b.Builder.Build(target, notingConn{cc, b.inspector}, opts) //nolint:wrapcheck // gRPC reports it
}

type notingConn struct {
	resolver.ClientConn

	inspector *inspector
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
	c.inspector.mu.Lock()
	c.inspector.addresses, c.inspector.resolved = all, time.Now()
	c.inspector.mu.Unlock()
	return c.ClientConn.UpdateState(state) //nolint:wrapcheck // likewise
}
