package grpcpool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/scale"
)

// maxHeaderListSize bounds what one response's headers, or trailers, may take in
// memory, in bytes as RFC 9113 section 6.5.2 counts them. Status details travel there,
// so it has to be far more than honest servers send: other implementations of gRPC
// accept 8 or 16 KiB. grpc-go's default is 16 MiB, which a hostile server could make
// every call take. A program sets its own with grpc.WithMaxHeaderListSize.
const maxHeaderListSize = 1 << 20

// Factory is a ConnectionFactory for one target. It may be used by several pools
// and its methods may be called concurrently.
type Factory struct {
	target      string
	creds       credentials.TransportCredentials
	dialOptions []grpc.DialOption
	ping        PingFunc
	logger      *slog.Logger
	memory      scale.Memory // what its channels learn of the server
	rotation    *rotation    // nil: the credentials are the caller's
}

// NewFactory returns a factory for any credentials: insecure, TLS, ALTS, SPIFFE
// or the caller's own. serverAddress is "host:port" or any gRPC target, such as
// "dns:///host:port" or "unix:/path" (gRPC Name Resolution). An address, a set of
// credentials or an option that can never work is an error here.
func NewFactory(serverAddress string, creds credentials.TransportCredentials, opts ...FactoryOption) (*Factory, error) {
	cfg, err := newFactoryConfig(opts)
	if err != nil {
		return nil, err
	}
	if name := cfg.tls.optionSet; name != "" {
		return nil, fmt.Errorf("grpcpool: %s is for NewMutualTLSFactory and NewMutualTLSFactoryFromFiles; the credentials settle it here", name)
	}
	return newFactory(serverAddress, creds, cfg)
}

func newFactory(serverAddress string, creds credentials.TransportCredentials, cfg *factoryConfig) (*Factory, error) {
	if creds == nil {
		return nil, errors.New("grpcpool: creds is nil; for plaintext say so with insecure.NewCredentials()")
	}
	if serverAddress == "" {
		return nil, errors.New(`grpcpool: serverAddress is empty, want "host:port" or a gRPC target`)
	}
	f := &Factory{target: serverAddress, creds: creds, ping: cfg.ping, logger: cfg.logger, rotation: cfg.rotation}
	if f.rotation != nil {
		f.dialOptions = append(f.dialOptions, scale.WithReplacer(&f.rotation.replacer))
	}
	f.dialOptions = append(f.dialOptions, grpc.WithMaxHeaderListSize(maxHeaderListSize))
	if cfg.keepalive != nil {
		f.dialOptions = append(f.dialOptions, grpc.WithKeepaliveParams(*cfg.keepalive))
	}
	if name := cfg.tls.serverName; name != "" {
		f.dialOptions = append(f.dialOptions, grpc.WithAuthority(name))
	}
	f.dialOptions = append(f.dialOptions, cfg.dialOptions...)
	if err := f.tryOut(); err != nil {
		return nil, err
	}
	return f, nil
}

// tryOut builds a channel and throws it away, unconnected: grpc.NewClient checks
// the target and whether the options go together.
func (f *Factory) tryOut() error {
	conn, err := f.newChannel(f.creds, new(scale.Observer))
	if err != nil {
		return err
	}
	canonical := conn.CanonicalTarget()
	_ = conn.Close() // never connected: there is nothing that could fail
	if _, endpoint, _ := strings.Cut(canonical, ":///"); endpoint == f.target {
		return checkHostPort(f.target) // no scheme that grpc-go knows: it took the default one, dns
	}
	return nil
}

// checkHostPort finds the mistakes in a "host:port" that grpc-go would only
// report on the first RPC. A missing port is none: dns takes 443.
func checkHostPort(address string) error {
	if scheme, _, ok := strings.Cut(address, "://"); ok {
		return fmt.Errorf("grpcpool: serverAddress %q: no resolver is registered for the scheme %q", address, scheme)
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

func (f *Factory) newChannel(creds credentials.TransportCredentials, observer *scale.Observer, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts := make([]grpc.DialOption, 0, len(f.dialOptions)+5)
	opts = append(opts, grpc.WithTransportCredentials(creds), scale.WithLogger(f.logger), scale.WithMemory(&f.memory))
	opts = append(opts, f.dialOptions...)
	opts = append(append(opts, scale.WithObserver(observer)), more...)
	conn, err := scale.NewClient(f.target, opts...)
	if err != nil {
		return nil, fmt.Errorf("grpcpool: serverAddress %q or its dial options: %w", f.target, err)
	}
	return conn, nil
}

// NewConnection returns a channel that is connected and has answered its ping, or
// whose ping says nothing about the connection; see HealthPing. It gives up, like a fail-fast RPC, when every address of the target has been tried
// once, or when ctx ends. The error answers errors.Is for ErrConnectionNotOK,
// names the last connection error, and wraps ctx's error if that was the end.
//
// The channel opens further connections to an address when the server's limit on
// concurrent streams makes it necessary; package scale has the options for that,
// which WithDialOptions takes.
func (f *Factory) NewConnection(ctx context.Context) (*grpc.ClientConn, error) {
	conn, _, err := f.NewInspectedConnection(ctx)
	return conn, err
}

// NewInspectedConnection is NewConnection, and a hold on the inside of the channel.
func (f *Factory) NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, Inspector, error) {
	start := time.Now()
	progress, observer := new(dialProgress), new(scale.Observer)
	conn, err := f.newChannel(progress.watch(f.creds), observer, eventOptions(ctx)...)
	if err != nil {
		return nil, nil, &connectionError{connecting, f.target, err}
	}
	if err = f.connect(ctx, conn, progress, observer); err == nil {
		err = f.firstPing(ctx, conn)
	}
	if err != nil {
		_ = conn.Close() // what matters is why it is not wanted
		f.logger.DebugContext(ctx, "connection failed", "target", f.target, "after", time.Since(start), "error", err)
		return nil, nil, err
	}
	if f.rotation != nil {
		f.rotation.follow(conn, observer) //nolint:contextcheck // it lasts as long as the channel, not as the call
	}
	f.logger.DebugContext(ctx, "connected", "target", f.target, "after", time.Since(start))
	return conn, observer, nil
}

// firstPatience is how long the first ping of a new channel goes on alone. A connection
// that lives and does not answer has a successor by then (see package scale), and a ping
// that is made now goes there. The first one stays where it is, and may yet be answered.
const firstPatience = 1500 * time.Millisecond

// firstPing pings conn until one ping ends, with another beside those under way each
// time that twice as long has gone by. A ping that says nothing about the connection,
// though there was time for it, is no reason to throw the connection away.
func (f *Factory) firstPing(ctx context.Context, conn *grpc.ClientConn) error {
	var running sync.WaitGroup
	defer running.Wait()
	pings, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, 1)
	for patience := firstPatience; ; patience *= 2 {
		running.Go(func() {
			select {
			case ends <- f.ConnectionOk(pings, conn):
			case <-pings.Done():
			}
		})
		timer := time.NewTimer(patience)
		select {
		case err := <-ends:
			timer.Stop()
			if ctx.Err() == nil && errors.As(err, new(*answer.NoVerdictError)) {
				f.logger.WarnContext(ctx, "connected, but the ping was inconclusive", "target", f.target, "error", err)
				return nil
			}
			return err
		case <-timer.C:
		}
	}
}

// connect waits until conn is READY.
func (f *Factory) connect(ctx context.Context, conn *grpc.ClientConn, progress *dialProgress, observer *scale.Observer) error {
	conn.Connect()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure:
			if err := lastConnectionError(ctx, conn, observer); err != nil {
				return &connectionError{connecting, f.target, asMet(err, observer.LastErrors())}
			}
		case connectivity.Idle:
			if !progress.reached() {
				return f.connectByCall(ctx, conn, progress, observer)
			}
			// The server has hung up already. Asking again at once would be a
			// dial loop.
			return &connectionError{connecting, f.target, errHungUp}
		case connectivity.Shutdown:
			return &connectionError{connecting, f.target, errHungUp}
		case connectivity.Connecting:
		}
		if !conn.WaitForStateChange(ctx, state) {
			return &connectionError{connecting, f.target, progress.explain(context.Cause(ctx))}
		}
	}
}

// connectByCall makes a call, which connects a channel that is IDLE though it was told
// to connect: its LB policy does so on demand, as ring_hash and rls do.
func (f *Factory) connectByCall(ctx context.Context, conn *grpc.ClientConn, progress *dialProgress, observer *scale.Observer) error {
	err := errorOfCall(ctx, conn)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &connectionError{connecting, f.target, progress.explain(context.Cause(ctx))}
	default:
		return &connectionError{connecting, f.target, asMet(err, observer.LastErrors())}
	}
}

var errHungUp = errors.New("the server closed the connection as soon as it stood")

// lastConnectionError is why a channel in TRANSIENT_FAILURE has no connection. It is
// nil if the channel has recovered in between.
func lastConnectionError(ctx context.Context, conn *grpc.ClientConn, observer *scale.Observer) error {
	if err := observer.PickError(ctx, healthpb.Health_Check_FullMethodName); err != nil {
		return err
	}
	// The state is not from a policy of package scale. grpc-go shows what is behind
	// it by the error of an RPC only, which goes through the program's interceptors
	// and retry policy: they may keep it for long.
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return errorOfCall(ctx, conn)
}

// errorOfCall makes a fail-fast call and returns its error, or nil if the channel is
// READY after it.
func errorOfCall(ctx context.Context, conn *grpc.ClientConn) error {
	ctx = metadata.NewOutgoingContext(ctx, nil)
	err := conn.Invoke(ctx, healthpb.Health_Check_FullMethodName, &healthpb.HealthCheckRequest{}, new(healthpb.HealthCheckResponse), answer.Fixed()...)
	if conn.GetState() == connectivity.Ready {
		return nil
	}
	return err
}

// askTimeout is how long it may take to ask a channel why it has no connection.
const askTimeout = time.Second

// ConnectionOk pings conn with the factory's PingFunc, whose RPCs go before those
// that wait for a stream. The error answers
// errors.Is for ErrConnectionNotOK and wraps the ping's.
func (f *Factory) ConnectionOk(ctx context.Context, conn *grpc.ClientConn) error {
	if conn == nil {
		return &connectionError{pinging, f.target, errors.New("the channel is nil")}
	}
	took, err := f.ping(scale.ContextWithPriority(ctx), conn)
	if err != nil {
		return &connectionError{pinging, f.target, err}
	}
	f.logger.DebugContext(ctx, "ping answered", "target", f.target, "after", took)
	return nil
}

// Reload asks for the newest identity at once, and takes it without waiting for
// files to be still for a second. The error says why it is not in use. It is for
// programs that learn of new certificates, by a signal or a watch; there is no need
// to call it. Without an identity to reload, after NewFactory, it does nothing.
func (f *Factory) Reload(ctx context.Context) error {
	if f.rotation == nil {
		return nil
	}
	return f.rotation.check(ctx, loadTimeout, 0)
}

// Close ends what the factory does by itself, which is to look for new certificates
// while channels of its are open, and waits for it. It does not close channels, and
// channels can still be made: handshakes look for new certificates all the same. It
// need not be called, since what it ends also ends with the factory's last channel;
// a pool does not call it, as its factory may be another's too. The error, if any,
// names what hangs and has not come back within a second, such as a file whose file
// system does not answer; it holds one goroutine until it does.
func (f *Factory) Close() error {
	if f.rotation == nil {
		return nil
	}
	return f.rotation.close()
}
