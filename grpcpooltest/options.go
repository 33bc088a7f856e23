package grpcpooltest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
)

// Option configures a [Server] or a [Standalone].
type Option func(*config)

type config struct {
	inMemory  bool
	noHealth  bool
	noCounts  bool
	limit     uint32 // of streams on a connection; 0: none
	options   []grpc.ServerOption
	register  []func(grpc.ServiceRegistrar)
	emptyCall func(context.Context) error // may be nil

	tls   *tls.Config // at most one of these three is set
	certs *Certs
	fresh bool // make certs

	err error // what is wrong with the options
}

func newConfig(opts []Option) config {
	var c config
	for _, opt := range opts {
		if opt == nil {
			c.refuse("an option is nil")
			continue
		}
		opt(&c)
	}
	ways := 0
	for _, is := range []bool{c.tls != nil, c.certs != nil, c.fresh} {
		if is {
			ways++
		}
	}
	if ways > 1 {
		c.refuse("WithTLS, WithMutualTLS and WithCerts exclude each other; use one of them")
	}
	if c.fresh && c.err == nil {
		c.certs, c.err = NewCerts()
	}
	return c
}

func (c *config) refuse(what string) {
	c.err = errors.Join(c.err, fmt.Errorf("grpcpooltest: %s", what))
}

// WithInMemory serves without a socket: clients reach the server by its DialOptions
// only. In a bubble of testing/synctest this is the only way, since its clock stands
// still while a goroutine waits for a socket. Make the server, its links and its clients
// inside the bubble.
func WithInMemory() Option { return func(c *config) { c.inMemory = true } }

// WithServices registers services. register is called at each start of the server, and for
// GoAway and SetStreamLimit. A service takes the place of one of this package with the
// same name. Its handlers must return when their contexts end: Stop waits for them.
func WithServices(register func(grpc.ServiceRegistrar)) Option {
	return func(c *config) {
		if register == nil {
			c.refuse("WithServices: the function is nil")
			return
		}
		c.register = append(c.register, register)
	}
}

// WithServerOptions adds options of gRPC's server, such as interceptors. If they set
// credentials (grpc.Creds), DialOptions does not know those of the client: give them to
// DialOptions as further options. WithMutualTLS and WithCerts need none of this.
func WithServerOptions(opts ...grpc.ServerOption) Option {
	return func(c *config) {
		if slices.Contains(opts, nil) {
			c.refuse("WithServerOptions: an option is nil")
			return
		}
		c.options = append(c.options, opts...)
	}
}

// WithMutualTLS serves mutual TLS with new certificates, which Certs returns.
// Default: plaintext.
func WithMutualTLS() Option { return func(c *config) { c.fresh = true } }

// WithCerts serves mutual TLS with certs, which the test has made with [NewCerts].
func WithCerts(certs *Certs) Option {
	return func(c *config) {
		if certs == nil {
			c.refuse("WithCerts: the certificates are nil; WithMutualTLS makes new ones")
			return
		}
		c.certs = certs
	}
}

// WithTLS serves TLS as cfg says. DialOptions then has no credentials; give it the
// client's as further options.
func WithTLS(cfg *tls.Config) Option {
	return func(c *config) {
		if cfg == nil {
			c.refuse("WithTLS: the configuration is nil")
			return
		}
		c.tls = cfg
	}
}

// WithStreamLimit lets each connection have n calls at a time. 0, the default, sets
// no limit. [Standalone.SetStreamLimit] changes it.
func WithStreamLimit(n uint32) Option { return func(c *config) { c.limit = n } }

// WithoutHealth serves no health service.
func WithoutHealth() Option { return func(c *config) { c.noHealth = true } }

// WithoutCounts leaves Counts at zero. Counting costs allocations in each call, so
// this is for benchmarks.
func WithoutCounts() Option { return func(c *config) { c.noCounts = true } }

// WithEmptyCall makes every call of grpc.testing.TestService/EmptyCall call f and end with
// its error: a call that waits or fails as the test wants. f may be called concurrently. It
// must return when its context ends: Stop waits for it.
func WithEmptyCall(f func(context.Context) error) Option {
	return func(c *config) {
		if f == nil {
			c.refuse("WithEmptyCall: the function is nil")
			return
		}
		c.emptyCall = f
	}
}
