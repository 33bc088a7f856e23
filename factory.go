package grpcpool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/handshake"
	"github.com/davidwartell/go-grpcpool/internal/logline"
	"github.com/davidwartell/go-grpcpool/scale"
)

// maxHeaderListSize bounds the memory of one response's headers, or trailers, in bytes as
// RFC 9113 section 6.5.2 counts them. Status details are sent there, so it has to be far
// more than honest servers send: other implementations of gRPC accept 8 or 16 KiB.
// grpc-go's default is 16 MiB, which a hostile server could make every call take.
const maxHeaderListSize = 1 << 20

// Factory is a ConnectionFactory for one target. It may be used by several pools,
// and its methods may be called concurrently. With a nil or zero Factory every dial and
// ping fails.
type Factory struct {
	target       string
	creds        credentials.TransportCredentials
	serverName   string // replaces the authority in the TLS handshake, unless it is ""
	dialOptions  []grpc.DialOption
	ping         PingFunc
	logger       *slog.Logger
	memory       scale.Memory       // what its channels learn about the server
	provider     *identity.Provider // nil: the credentials are the caller's
	ownsProvider bool               // Close closes it
	mute         atomic.Bool        // the latest ping had no answer though the connection lived
	muteTold     atomic.Bool        // that is logged
	unsure       logline.Recurring  // pings that say nothing
}

var errNotMade = errors.New("the Factory is nil or empty; make one with NewFactory, NewMutualTLSFactory or NewIdentityFactory")

// made reports whether the factory was made by a constructor.
func (f *Factory) made() bool { return f != nil && f.ping != nil }

// notMade is the error of a factory that was not made by a constructor.
func notMade() error { return &connectionError{cause: errNotMade} }

// NewFactory returns a factory for any credentials: insecure, TLS, ALTS, SPIFFE
// or the caller's own. serverAddress is "host:port" or any gRPC target, such as
// "dns:///host:port" or "unix:/path" (gRPC Name Resolution). An address, credentials
// or options that can never work are errors here.
func NewFactory(serverAddress string, creds credentials.TransportCredentials, opts ...FactoryOption) (*Factory, error) {
	cfg, err := newFactoryConfig(opts)
	if err != nil {
		return nil, err
	}
	return newFactory(serverAddress, creds, cfg)
}

func newFactory(serverAddress string, creds credentials.TransportCredentials, cfg *factoryConfig) (*Factory, error) {
	if creds == nil {
		return nil, errors.New("grpcpool: creds is nil; for plaintext use insecure.NewCredentials()")
	}
	if serverAddress == "" {
		return nil, errors.New(`grpcpool: serverAddress is empty, want "host:port" or a gRPC target`)
	}
	f := &Factory{target: serverAddress, creds: creds, serverName: cfg.serverName, ping: cfg.ping, logger: cfg.logger}
	if f.ping == nil {
		f.ping = f.pingOrProof
	}
	f.dialOptions = append(f.dialOptions, grpc.WithMaxHeaderListSize(maxHeaderListSize))
	if cfg.keepalive != nil {
		f.dialOptions = append(f.dialOptions, grpc.WithKeepaliveParams(*cfg.keepalive))
	}
	if cfg.serverName != "" {
		f.dialOptions = append(f.dialOptions, grpc.WithAuthority(cfg.serverName))
	}
	f.dialOptions = append(f.dialOptions, cfg.dialOptions...)
	if len(cfg.dialOptions) == 0 && cfg.serverName == "" && plainTarget(serverAddress) {
		return f, nil // nothing can be wrong, and a trial would cost a quarter of a plain channel
	}
	if err := f.tryOut(); err != nil {
		return nil, err
	}
	return f, nil
}

// plainTarget reports whether target is sure to be one that grpc.NewClient takes: a host and
// a port without mistakes, or a URI that names a registered resolver.
func plainTarget(target string) bool {
	u, err := url.Parse(target)
	if err == nil && u.Scheme != "" && u.Opaque == "" {
		return resolver.Get(u.Scheme) != nil
	}
	_, port, err := net.SplitHostPort(target)
	return err == nil && port != "" && checkHostPort(target) == nil
}

// tryOut makes a channel and closes it, unconnected: grpc.NewClient checks the target and
// whether the options fit together.
func (f *Factory) tryOut() error {
	conn, err := f.newChannel(f.creds, new(scale.Observer), nil)
	if err != nil {
		return err
	}
	canonical := conn.CanonicalTarget()
	_ = conn.Close() // never connected: it cannot fail
	// Without a scheme that grpc-go knows it uses the default: dns, unless the program has
	// chosen another (resolver.SetDefaultScheme), whose addresses only that one understands.
	if canonical == "dns:///"+f.target {
		return checkHostPort(f.target)
	}
	return nil
}

// checkHostPort finds the mistakes in a "host:port" that grpc-go would not report before
// the first RPC. A missing port is no mistake: dns uses 443.
func checkHostPort(address string) error {
	if scheme, _, ok := strings.Cut(address, "://"); ok {
		return fmt.Errorf("grpcpool: serverAddress %q: no resolver is registered for the scheme %q", address, scheme)
	}
	if err := checkHost(address); err != nil {
		return err
	}
	if !strings.Contains(address, ":") || net.ParseIP(strings.Trim(address, "[]")) != nil {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("grpcpool: serverAddress %q: %w", address, err)
	}
	if n, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", port); err != nil || n == 0 {
		return fmt.Errorf("grpcpool: serverAddress %q: the port %q is neither 1 to 65535 nor a service name", address, port)
	}
	return nil
}

// checkHost finds characters that no host has. A target is a URI, so a program with such a
// host can still escape them: it is not checked then.
func checkHost(address string) error {
	for _, r := range address {
		if r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) {
			return fmt.Errorf("grpcpool: serverAddress %q: %q cannot be part of a host or a port; want \"host:port\" or a gRPC target", address, string(r))
		}
	}
	return nil
}

func (f *Factory) newChannel(creds credentials.TransportCredentials, observer *scale.Observer, log *logline.Switch, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts := make([]grpc.DialOption, 0, len(f.dialOptions)+5)
	opts = append(opts, grpc.WithTransportCredentials(creds), scale.WithLogger(log.Logger(f.logger)), scale.WithMemory(&f.memory))
	opts = append(opts, f.dialOptions...)
	opts = append(append(opts, scale.WithObserver(observer)), more...)
	conn, err := scale.NewClient(f.target, opts...)
	if err != nil {
		return nil, fmt.Errorf("grpcpool: serverAddress %q or its dial options: %w", f.target, err)
	}
	return conn, nil
}

// NewConnection returns a channel that is connected and has answered its ping, or
// whose ping says nothing about the connection (see HealthPing). Like a fail-fast RPC, it
// gives up when every address of the target has been tried once, or when ctx ends. But a
// handshake that a server has begun and not finished is waited for until ctx ends, for 20 s
// at most: who gives it up and dials again goes to the end of a busy server's queue. The
// error matches ErrConnectionNotOK with errors.Is, names the last connection error, and
// wraps ctx's error if ctx has ended.
//
// The channel opens further connections to an address when the server's limit on
// concurrent streams makes it necessary. Package scale has dial options for that; pass
// them to WithDialOptions.
func (f *Factory) NewConnection(ctx context.Context) (*grpc.ClientConn, error) {
	conn, _, err := f.NewInspectedConnection(ctx)
	return conn, err
}

// NewInspectedConnection is NewConnection, and returns an inspector of the channel as well.
func (f *Factory) NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, Inspector, error) {
	if !f.made() {
		return nil, nil, notMade()
	}
	w, err := f.newWatched(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := f.Connect(ctx, w.conn, w); err != nil {
		_ = w.conn.Close() // the error of the dial or ping matters more
		return nil, nil, err
	}
	w.log.On()
	return w.conn, w, nil
}

// watched is the inspector of a channel, which also knows how far its dials have come.
type watched struct {
	*scale.Observer

	conn     *grpc.ClientConn
	progress handshake.Progress
	log      *logline.Switch // of the channel's lines
}

// NewChannel returns a channel that is not connected, and its inspector. It does not
// dial: the first RPC does, or Connect.
func (f *Factory) NewChannel(ctx context.Context) (*grpc.ClientConn, Inspector, error) {
	if !f.made() {
		return nil, nil, notMade()
	}
	w, err := f.newWatched(ctx)
	if err != nil {
		return nil, nil, err
	}
	w.log.On()
	return w.conn, w, nil
}

func (f *Factory) newWatched(ctx context.Context) (*watched, error) {
	w := &watched{Observer: new(scale.Observer), log: logSwitch(ctx)}
	conn, err := f.newChannel(w.progress.Watch(f.creds, f.serverName), w.Observer, w.log, eventOptions(ctx)...)
	if err != nil {
		return nil, &connectionError{doing: connecting, target: f.target, cause: err}
	}
	w.conn = conn
	return w, nil
}

// Connect connects a channel of NewChannel, and pings it. How long it waits, and its error,
// are NewConnection's. It does not close the channel.
func (f *Factory) Connect(ctx context.Context, conn *grpc.ClientConn, inspector Inspector) error {
	if !f.made() {
		return notMade()
	}
	w, ok := inspector.(*watched)
	if conn == nil || !ok {
		return &connectionError{doing: connecting, target: f.target, cause: errors.New("Connect was given a channel that is not from NewChannel of a Factory")}
	}
	start := time.Now()
	err := f.connect(ctx, conn, &w.progress, w.Observer)
	if err == nil {
		err = f.firstPing(ctx, conn, w.Observer)
	}
	if err != nil {
		f.log(ctx, slog.LevelDebug, "dial failed", slog.Duration(logline.Took, time.Since(start)), logline.Text(err))
		return err
	}
	f.log(ctx, slog.LevelDebug, "dialled", slog.Duration(logline.Took, time.Since(start)))
	return nil
}

// ConnectionOk pings conn with the factory's PingFunc, whose RPCs are sent before those
// that wait for a stream. The error matches ErrConnectionNotOK with errors.Is, and wraps
// the ping's.
func (f *Factory) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	if !f.made() {
		return notMade()
	}
	if conn == nil {
		return &connectionError{doing: pinging, target: f.target, cause: errors.New("the channel is nil")}
	}
	ctx = metadata.NewOutgoingContext(ctx, nil) // that of a caller's is for its own calls
	took, err := f.ping(scale.ContextWithPriority(ctx), conn)
	f.noteMute(ctx, err)
	if err != nil {
		return &connectionError{doing: pinging, target: f.target, cause: err}
	}
	f.log(ctx, slog.LevelDebug, "tested", slog.Duration(logline.Took, took))
	return nil
}
