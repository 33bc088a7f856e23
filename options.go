package grpcpool

import (
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// FactoryOption changes how a Factory makes channels.
type FactoryOption func(*factoryConfig) error

type factoryConfig struct {
	dialOptions []grpc.DialOption
	ping        PingFunc
	keepalive   *keepalive.ClientParameters
	logger      *slog.Logger
	tls         tlsSettings
	rotation    *rotation // nil: the credentials are the caller's
}

func newFactoryConfig(opts []FactoryOption) (*factoryConfig, error) {
	cfg := &factoryConfig{ping: HealthPing, logger: slog.New(slog.DiscardHandler), tls: defaultTLSSettings()}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("grpcpool: option %d is nil", i+1)
		}
		if err := opt(cfg); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// WithDialOptions adds options for grpc.NewClient. They come after the factory's
// own, so that where two speak of the same thing these win.
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

// WithPing sets how a channel is tested. The default is HealthPing.
func WithPing(ping PingFunc) FactoryOption {
	return func(cfg *factoryConfig) error {
		if ping == nil {
			return errors.New("grpcpool: WithPing: the PingFunc is nil; leave the option out for HealthPing")
		}
		cfg.ping = ping
		return nil
	}
}

// WithKeepalive sets grpc-go's HTTP/2 keepalive (gRFC A8). Without it a channel
// of NewFactory sends no keepalive pings. A server closes connections that ping
// more often than its policy allows, which by default is once in five minutes.
func WithKeepalive(params keepalive.ClientParameters) FactoryOption {
	return func(cfg *factoryConfig) error {
		cfg.keepalive = &params
		return nil
	}
}

// WithLogger sets where a factory logs: connections made and tested at Debug, a
// new identity at Info, at Warn a source that fails and certificates near their end.
// The default discards. Keys, certificates and metadata are never logged.
func WithLogger(logger *slog.Logger) FactoryOption {
	return func(cfg *factoryConfig) error {
		if logger == nil {
			return errors.New("grpcpool: WithLogger: the logger is nil; leave the option out to discard")
		}
		cfg.logger = logger
		return nil
	}
}
