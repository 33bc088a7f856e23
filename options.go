package grpcpool

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/identity"
)

// FactoryOption changes how a Factory makes channels. A nil option, and an option with a
// wrong argument, is an error of the function that makes the factory.
type FactoryOption func(*factoryConfig) error

type factoryConfig struct {
	dialOptions []grpc.DialOption
	ping        PingFunc // of WithPing; in the end the one to use, nil: the factory's own
	healthCheck PingFunc // of WithHealthCheck
	keepalive   *keepalive.ClientParameters
	logger      *slog.Logger
	serverName  string // "": from the target
}

func newFactoryConfig(opts []FactoryOption) (*factoryConfig, error) {
	cfg := &factoryConfig{logger: slog.New(slog.DiscardHandler)}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("grpcpool: option %d is nil", i+1)
		}
		if err := opt(cfg); err != nil {
			return nil, err
		}
	}
	switch {
	case cfg.ping != nil && cfg.healthCheck != nil:
		return nil, errors.New("grpcpool: both a PingFunc and WithHealthCheck are given; leave one of them out")
	case cfg.healthCheck != nil:
		cfg.ping = cfg.healthCheck
	}
	return cfg, nil
}

// identityLogger has the provider of a factory's own log where the factory does.
func (cfg *factoryConfig) identityLogger(target string) identity.Option {
	return identity.WithLogger(cfg.logger.With("target", target))
}

// WithDialOptions adds options for grpc.NewClient, and those of package scale. They come
// after the factory's own, so they win where both set the same thing: transport
// credentials among them replace the factory's, with their identity. It may be given
// several times.
func WithDialOptions(opts ...grpc.DialOption) FactoryOption {
	return func(cfg *factoryConfig) error {
		for i, opt := range opts {
			if opt == nil {
				return fmt.Errorf("grpcpool: WithDialOptions: option %d is nil", i+1)
			}
		}
		cfg.dialOptions = append(cfg.dialOptions, opts...)
		return nil
	}
}

// WithPing sets how a channel is tested. The default is HealthPing; see also
// WithHealthCheck.
func WithPing(ping PingFunc) FactoryOption {
	return func(cfg *factoryConfig) error {
		if ping == nil {
			return errors.New("grpcpool: WithPing: the PingFunc is nil; leave the option out for HealthPing")
		}
		cfg.ping = ping
		return nil
	}
}

// WithHealthCheck makes the test of a channel ask whether a service serves, where
// HealthPing asks only for an answer: NewConnection and ConnectionOk fail, and so does a
// pool's Get, with what the server has answered. It is for programs that would rather have
// no channel than one to a server that says it does not serve.
//
// service is the name that the server's health service (grpc.health.v1.Health) knows, such
// as "shop.v1.Orders", or "" for the whole server. Not OK are the status of health
// NOT_SERVING, or any other than SERVING, and the gRPC statuses UNAVAILABLE and NOT_FOUND;
// the latter means that the health service does not know the name. Any other answer leaves
// the channel OK, as with HealthPing: a server without a health service, or one that wants
// a token for it, does not say whether it serves.
//
// It cannot be combined with WithPing or the ping of NewMutualTLSFactory. A service that is
// not UTF-8 is an error.
func WithHealthCheck(service string) FactoryOption {
	return func(cfg *factoryConfig) error {
		if !utf8.ValidString(service) {
			return fmt.Errorf("grpcpool: WithHealthCheck: %q is not UTF-8", service)
		}
		cfg.healthCheck = servicePing(service)
		return nil
	}
}

// WithKeepalive sets grpc-go's HTTP/2 keepalive (gRFC A8). Without it only the channels of
// NewMutualTLSFactory send keepalive pings. A server closes connections that ping
// more often than its policy allows, which by default is once in five minutes.
func WithKeepalive(params keepalive.ClientParameters) FactoryOption {
	return func(cfg *factoryConfig) error {
		cfg.keepalive = &params
		return nil
	}
}

// WithLogger sets where a factory logs: at Warn a ping that said nothing or has no answer, at
// Debug the channels made and tested, and what happens to its channels as scale.WithLogger
// describes it; but if their pool has a logger, that logs it. NewMutualTLSFactory and
// NewMutualTLSFactoryFromFiles also log there what identity.WithLogger names. Lines have the
// attributes that shared.WithLogger lists. The default discards. Keys, certificates and
// metadata are never logged.
func WithLogger(logger *slog.Logger) FactoryOption {
	return func(cfg *factoryConfig) error {
		if logger == nil {
			return errors.New("grpcpool: WithLogger: the logger is nil; leave the option out to discard")
		}
		cfg.logger = logger
		return nil
	}
}

// WithServerName sets the name that the server's certificate must be valid for, in
// place of the host of the server's address: for a server that is dialled by an IP
// address or through a tunnel. It is also the name in SNI, and the :authority of RPCs
// unless grpc.WithAuthority sets another. Credentials that were made for another name are
// an error.
func WithServerName(name string) FactoryOption {
	return func(cfg *factoryConfig) error {
		if err := checkServerName(name); err != nil {
			return fmt.Errorf("grpcpool: WithServerName: %w", err)
		}
		cfg.serverName = name
		return nil
	}
}

// checkServerName refuses what no certificate can hold. It does not judge host names
// otherwise: crypto/x509 compares odd ones too.
func checkServerName(name string) error {
	switch {
	case name != strings.TrimSpace(name):
		return fmt.Errorf("%q is not a host name or IP address: it begins or ends with white space, such as a line break from a file or a command", name)
	case name == "", strings.ContainsFunc(name, func(r rune) bool { return r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("%q is not a host name or IP address", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }):
		return fmt.Errorf("%q is not ASCII; write an international name as certificates do (xn--...)", name)
	}
	return nil
}
