package shared

import (
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/internal/logline"
)

// What a Pool does without options.
const (
	defaultDialTimeout  = 20 * time.Second // grpc-go's own minimum for a connection attempt
	defaultTestTimeout  = time.Second
	defaultTestInterval = time.Second
	defaultDrainTimeout = 5 * time.Second
)

const (
	// proofLasts is how long a sign of life allows the pool to lend without a test.
	proofLasts = 500 * time.Millisecond

	// tickInterval is how often the watchdog looks while leases are out or may be taken, or,
	// on a channel that watches its own connections, while they come and go.
	// It must be at most half of proofLasts: the time of a sign of life is known only to
	// one tick.
	tickInterval = proofLasts / 2

	// minDoubtAge is how old a sign of life must be before an RPC that ends with
	// Unavailable casts doubt on it.
	minDoubtAge = 100 * time.Millisecond

	// A slow server is not a dead one: a test may take slowServerFactor times as long as
	// the last dial or test, if that is more than the test timeout, up to
	// maxSlowTest.
	slowServerFactor = 3
	maxSlowTest      = 5 * time.Second
)

// Option changes how a Pool works.
type Option func(*config)

type config struct {
	name         string
	logger       *slog.Logger
	tracer       Tracer
	attach       []func(*Pool) Hooks
	idleTimeout  time.Duration // <= 0: never
	dialTimeout  time.Duration
	testTimeout  time.Duration
	testInterval time.Duration
	drainTimeout time.Duration
	leakAfter    time.Duration // 0: off
	waitForReady bool
	lazy         bool

	mistakes []string // in the arguments of New: what, and what to do
}

func newConfig(factory grpcpool.ConnectionFactory, idleTimeout time.Duration, opts []Option) config {
	cfg := config{
		logger:       slog.New(slog.DiscardHandler),
		idleTimeout:  idleTimeout,
		dialTimeout:  defaultDialTimeout,
		testTimeout:  defaultTestTimeout,
		testInterval: defaultTestInterval,
		drainTimeout: defaultDrainTimeout,
	}
	if isNil(factory) {
		cfg.mistake("nil ConnectionFactory: pass one, such as grpcpool.NewFactory returns when its error is nil")
	}
	for i, opt := range opts {
		if opt == nil {
			cfg.mistake(fmt.Sprintf("option %d of %d is nil: leave it out", i+1, len(opts)))
			continue
		}
		opt(&cfg)
	}
	if _, ok := factory.(grpcpool.ChannelFactory); cfg.lazy && !ok && !isNil(factory) {
		cfg.mistake("WithLazy: the factory has to be a grpcpool.ChannelFactory, such as grpcpool.NewFactory returns; leave the option out")
	}
	if cfg.name != "" {
		cfg.logger = cfg.logger.With(logline.Pool, cfg.name)
	}
	return cfg
}

// isNil reports whether there is no factory. A nil pointer in the interface, such as a nil
// *grpcpool.Factory, is what a program has that does not look at the error of a
// constructor.
func isNil(factory grpcpool.ConnectionFactory) bool {
	switch v := reflect.ValueOf(factory); v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func, reflect.Map:
		return v.IsNil()
	default:
		return false
	}
}

// mistake notes what is wrong with an argument of New, and what to do about it.
func (cfg *config) mistake(text string) { cfg.mistakes = append(cfg.mistakes, text) }

// err returns an error that names all mistakes, or nil.
func (cfg *config) err() error {
	if len(cfg.mistakes) == 0 {
		return nil
	}
	return &misuseError{cfg.mistakes}
}

// positive sets *to to d, which must be above 0.
func (cfg *config) positive(option string, to *time.Duration, d time.Duration) {
	if d <= 0 {
		cfg.mistake(fmt.Sprintf("%s(%v): must be above 0; leave the option out for the default, %v", option, d, *to))
		return
	}
	*to = d
}

// notNegative sets *to to d, which must be 0 or above. zero says what 0 means.
func (cfg *config) notNegative(option string, to *time.Duration, d time.Duration, zero string) {
	if d < 0 {
		cfg.mistake(fmt.Sprintf("%s(%v): must not be negative; 0 means %s", option, d, zero))
		return
	}
	*to = d
}

// WithName names the pool in logs, traces, metrics and Stats. The default is no name.
func WithName(name string) Option {
	return func(cfg *config) { cfg.name = name }
}

// WithLogger makes the pool log: one line at Warn for a fault, again every ten minutes while
// it lasts, and one at Info when there is a connection again. Every event is a line at Debug,
// at most one a second of a kind. What may be the beginning of an outage is logged up to 6.5 s
// later, with the time at which it was. Mistakes in the arguments of New are logged at Error.
// By default nothing is logged. logger must not be nil.
//
// A factory may have the same logger: it leaves to the pool what happens to its channels. The
// attributes of a line, where they are known:
//
//	pool, target                    the pool's name, and what it dials
//	channel, address, connection    as in Event
//	took, age, outage               how long a dial, a test or a wait took; how long a connection, a channel or a lease lived; how long there was no connection
//	error                           why, in one line
//	hint                            what to do; in every line at Warn or above
//	count, suppressed               how many events the line stands for, if several; how many had none since the last line like it
//	borrowed_by                     the stack of a Get whose lease was not returned
func WithLogger(logger *slog.Logger) Option {
	return func(cfg *config) {
		if logger == nil {
			cfg.mistake("WithLogger(nil): leave the option out to log nothing")
			return
		}
		cfg.logger = logger
	}
}

// WithTracer makes the pool report waits, dials and tests to tracer, which must not be
// nil. Package otelpool has one for OpenTelemetry.
func WithTracer(tracer Tracer) Option {
	return func(cfg *config) {
		if tracer == nil {
			cfg.mistake("WithTracer(nil): leave the option out to trace nothing")
			return
		}
		cfg.tracer = tracer
	}
}

// WithWaitForReady makes Get try again until its context ends, as gRPC's wait-for-ready
// does (wait-for-ready.md in grpc/grpc's doc). Without it, Get returns the error of a dial that
// fails. RPCs made on the pool are made as with grpc.WaitForReady(true), whatever the service
// config says, unless they have the call option themselves.
func WithWaitForReady() Option {
	return func(cfg *config) { cfg.waitForReady = true }
}

// WithLazy makes Get lend the channel at once, connected or not, and leave the rest to gRPC:
// RPCs on the lease wait, fail or are tried again by its rules, as those made on the pool
// are. It is for callers that hold a lease for long, and so can do nothing with the proof of a
// moment. The factory has to be a grpcpool.ChannelFactory.
func WithLazy() Option {
	return func(cfg *config) { cfg.lazy = true }
}

// WithDialTimeout bounds one call of the factory's NewConnection. d must be above 0.
// The default is 20 s. The dial belongs to the pool: if the context of the caller who
// caused it ends, the dial goes on for the next caller.
func WithDialTimeout(d time.Duration) Option {
	return func(cfg *config) { cfg.positive("WithDialTimeout", &cfg.dialTimeout, d) }
}

// WithTestTimeout bounds one call of the factory's ConnectionOk. d must be above 0. The
// default is 1 s. If the server's last answer to a dial or a test took longer than a
// third of d, the next test may take three times as long as that answer, up to 5 s. On a
// channel that watches its own connections (see grpcpool.Supervisor), a test that fails may
// be made again, for 2.5 s at least, as the first may have been on a connection that the
// channel is about to replace.
func WithTestTimeout(d time.Duration) Option {
	return func(cfg *config) { cfg.positive("WithTestTimeout", &cfg.testTimeout, d) }
}

// WithTestInterval sets how long a channel with leases out may give no sign of life
// before it is tested in the background. d must be above 0. The default is 1 s. The
// answers to RPCs made on the pool are signs of life. The pool does not see RPCs made
// on a lease's Connection.
//
// It has no effect on a channel that watches its own connections, as those of a
// grpcpool.Factory do unless their probes are turned off (see grpcpool.Supervisor). With
// leases out such a channel is tested when it has lost a connection, or when an RPC made on
// the pool has ended with Unavailable.
func WithTestInterval(d time.Duration) Option {
	return func(cfg *config) { cfg.positive("WithTestInterval", &cfg.testInterval, d) }
}

// WithDrainTimeout sets how long Close waits for leases that are out. d must not be
// negative; 0 means that Close does not wait. The default is 5 s.
func WithDrainTimeout(d time.Duration) Option {
	return func(cfg *config) {
		cfg.notNegative("WithDrainTimeout", &cfg.drainTimeout, d, "that Close does not wait for leases")
	}
}

// WithLeakDetection reports each lease of Get that has been out for longer than d: once,
// as EventLeaked, in Stats, and in the log at Warn with the stack of the Get. It also
// makes Holders name the holders of leases. Each Get then walks its stack. d must not be
// negative; 0 turns leak detection off, which is the default. RPCs made on the pool
// hold their leases as long as they run, and are neither reported nor shown.
func WithLeakDetection(d time.Duration) Option {
	return func(cfg *config) {
		cfg.notNegative("WithLeakDetection", &cfg.leakAfter, d, "that leak detection is off")
	}
}
