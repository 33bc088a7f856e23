package shared

import (
	"log/slog"
	"time"
)

// What a Pool does without options.
const (
	defaultDialTimeout  = 20 * time.Second // grpc-go's own least time for a connection attempt
	defaultTestTimeout  = time.Second
	defaultTestInterval = time.Second
	defaultDrainTimeout = 5 * time.Second
)

const (
	// proofLasts is how long a sign of life allows lending without a test.
	proofLasts = 500 * time.Millisecond

	// tickInterval is how often the watchdog looks while there is something to
	// see. It must be at most half of proofLasts, since a sign of life is only
	// known to lie between two ticks.
	tickInterval = proofLasts / 2

	// doubtPause is how old a sign of life must be before an RPC that ends with
	// Unavailable calls it into question.
	doubtPause = 100 * time.Millisecond

	// Failed dials start at least minDialPause apart and at most maxDialPause,
	// at random between, so that many clients do not come back in step and an
	// outage's end is seen within a second.
	minDialPause = 750 * time.Millisecond
	maxDialPause = 900 * time.Millisecond

	// A test may take patience times as long as the last dial or test did, if
	// that is more than the test timeout, and slowestTest at most: a server that
	// is slow is not dead.
	patience    = 3
	slowestTest = 5 * time.Second
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
	leakAfter    time.Duration // <= 0: off
	waitForReady bool
}

func newConfig(idleTimeout time.Duration, opts []Option) config {
	cfg := config{
		logger:       slog.New(slog.DiscardHandler),
		idleTimeout:  idleTimeout,
		dialTimeout:  defaultDialTimeout,
		testTimeout:  defaultTestTimeout,
		testInterval: defaultTestInterval,
		drainTimeout: defaultDrainTimeout,
	}
	for _, opt := range opts {
		if opt != nil {
			opt(&cfg)
		}
	}
	if cfg.name != "" {
		cfg.logger = cfg.logger.With("pool", cfg.name)
	}
	return cfg
}

// WithName names the pool in logs, traces and Stats.
func WithName(name string) Option {
	return func(cfg *config) { cfg.name = name }
}

// WithLogger sets where the pool logs its events: life cycle at Debug, recovery at
// Info, trouble at Warn. There is at most about one line a second about the same;
// the next says how many events were suppressed. The default, and nil, discard.
func WithLogger(logger *slog.Logger) Option {
	return func(cfg *config) {
		if logger != nil {
			cfg.logger = logger
		}
	}
}

// WithTracer sets who is told of waits, dials and tests. See package otelpool.
func WithTracer(tracer Tracer) Option {
	return func(cfg *config) { cfg.tracer = tracer }
}

// WithWaitForReady makes Get, and RPCs made on the pool, keep trying until their
// context ends. Without it they fail with the last error once a dial has failed.
// The call option grpc.WaitForReady says the same for one RPC made on the pool.
func WithWaitForReady() Option {
	return func(cfg *config) { cfg.waitForReady = true }
}

// WithDialTimeout bounds one call of the factory's NewConnection. The default is
// 20 s; 0 and less mean the default. The dial belongs to the pool, so a caller
// whose context ends earlier leaves it running for the next.
func WithDialTimeout(d time.Duration) Option {
	return func(cfg *config) { cfg.dialTimeout = orDefault(d, defaultDialTimeout) }
}

// WithTestTimeout bounds one call of the factory's ConnectionOk. The default is
// 1 s; 0 and less mean the default. A server whose last answer, to a dial or a
// test, took longer than a third of it is given three times as long as that, up
// to 5 s.
func WithTestTimeout(d time.Duration) Option {
	return func(cfg *config) { cfg.testTimeout = orDefault(d, defaultTestTimeout) }
}

// WithTestInterval sets how long a channel with leases out may give no sign of
// life before it is tested in the background. The default is 1 s; 0 and less
// mean the default. RPCs made on the pool itself are signs of life; those made on
// a lease's Connection are not seen.
func WithTestInterval(d time.Duration) Option {
	return func(cfg *config) { cfg.testInterval = orDefault(d, defaultTestInterval) }
}

// WithDrainTimeout sets how long Close waits for leases that are out. The default
// is 5 s; 0 and less mean not at all.
func WithDrainTimeout(d time.Duration) Option {
	return func(cfg *config) { cfg.drainTimeout = max(d, 0) }
}

// WithLeakDetection reports each lease that has been out for longer than d: once,
// at Warn, with the stack of the Get that borrowed it, as EventLeaked and in
// Stats; and has Holders say who holds leases. It costs a stack walk for each Get.
// 0 and less turn it off, which is the default. RPCs made on the pool itself hold
// their leases as long as they run and are neither reported nor shown.
func WithLeakDetection(d time.Duration) Option {
	return func(cfg *config) { cfg.leakAfter = d }
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
