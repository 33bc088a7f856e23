package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/resolver"
)

// NewClient is grpc.NewClient for a channel that opens further connections to an
// address when the server's limit on concurrent streams makes it necessary. It
// takes every dial option that grpc.NewClient takes, and this package's.
//
// The LB policy that a service config names, the resolver's or the program's own,
// becomes the child of [Name]; the rest of the service config stays as it is.
//
// Errors are grpc.NewClient's, and those of this package's options.
func NewClient(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	if slices.Contains(opts, nil) {
		return nil, errors.New("scale: one of the dial options is nil")
	}
	plain, sealed := seeThrough(opts)
	o, err := gather(plain)
	if err != nil {
		return nil, err
	}
	ch := newChannel(o)
	if err := o.observer.attach(ch); err != nil {
		return nil, err
	}
	theirs, ok := inspect(plain)
	if !ok && sealed == nil {
		sealed = errors.New("scale: this grpc-go hides its dial options")
	}
	opts = o.wrap(ch, target, opts, theirs)

	handle := openHandles.add(ch)
	defer openHandles.remove(handle)
	serviceConfig := grpc.WithDefaultServiceConfig(rewrite(o.defaultServiceConfig(), handle))
	if sealed == nil {
		opts = append(opts, serviceConfig)
	} else {
		opts = append([]grpc.DialOption{serviceConfig}, opts...) // so that the program's own would win
	}
	cc, err := grpc.NewClient(target, opts...)
	if err != nil {
		o.observer.detach(ch)
		return nil, fmt.Errorf("scale: %w", err)
	}
	if !ch.configured.Load() {
		_ = cc.Close() // never connected: there is nothing that could fail
		o.observer.detach(ch)
		if sealed == nil {
			sealed = errors.New("scale: grpc-go itself adds dial options in this process")
		}
		return nil, fmt.Errorf("%w, and it sets a default service config; use scale.WithDefaultServiceConfig instead", sealed)
	}
	return cc, nil
}

// defaultServiceConfig is the program's own, or one that leaves everything out.
// It names this policy, as an empty one would have pick_first parse a config:
// grpc-go does that for a service config without a policy, not where there is none.
func (o *clientOptions) defaultServiceConfig() string {
	if o.serviceConfig != nil {
		return *o.serviceConfig
	}
	return `{"loadBalancingConfig": [{"` + Name + `": {}}]}`
}

// wrap returns opts with every resolver that target may need wrapped, and notes the
// program's default service config in o. theirs is what could be read of opts. When
// that is not all, grpc.WithResolvers and grpc.WithDefaultServiceConfig keep all their
// effect, so that a service config of such a resolver replaces the policy instead of
// becoming its child; NewClient refuses such a default service config.
func (o *clientOptions) wrap(ch *channel, target string, opts []grpc.DialOption, theirs grpcOptions) []grpc.DialOption {
	if o.serviceConfig == nil {
		o.serviceConfig = theirs.serviceConfig
	}
	own := make([]resolver.Builder, 0, len(o.resolvers)+len(theirs.resolvers))
	for _, b := range slices.Concat(o.resolvers, theirs.resolvers) {
		own = append(own, ch.wrapResolver(b))
	}
	var registered []resolver.Builder
	for _, scheme := range schemes(target) {
		if b := resolver.Get(scheme); b != nil {
			registered = append(registered, ch.wrapResolver(b))
		}
	}
	// grpc-go takes the first builder that has the scheme.
	wrapped := []grpc.DialOption{grpc.WithResolvers(own...)}
	wrapped = append(wrapped, opts...)
	return append(wrapped, grpc.WithResolvers(registered...))
}

// schemes are those that grpc.NewClient may resolve target by: its own, and the
// default ones for a target without a scheme or with one that nobody registered.
func schemes(target string) []string {
	defaults := []string{"dns", resolver.GetDefaultScheme()}
	if u, err := url.Parse(target); err == nil && u.Scheme != "" {
		return append([]string{strings.ToLower(u.Scheme)}, defaults...)
	}
	return defaults
}

// channel is what outlives the LB policies of a ClientConn, which grpc-go throws
// away whenever the ClientConn goes idle.
type channel struct {
	settings  settings
	logger    *slog.Logger // nil: grpc-go's own log
	memory    *Memory
	ask       func(context.Context, grpc.ClientConnInterface) error // nil: the health service
	events    events
	replacers []*Replacer

	connections atomic.Uint64 // made so far; numbers them

	configured atomic.Bool
	tapless    sync.Once

	mu          sync.Mutex // guards what follows
	policies    map[*policy]struct{}
	resolverErr error // of the resolver's last report, nil if it was a state
}

func newChannel(o *clientOptions) *channel {
	memory := o.memory
	if memory == nil {
		memory = new(Memory)
	}
	return &channel{
		memory:    memory,
		ask:       o.ask,
		settings:  o.settings,
		logger:    o.logger,
		events:    events{hooks: o.onEvent},
		replacers: o.replacers,
		policies:  make(map[*policy]struct{}),
	}
}

var grpcLogger = grpclog.Component("grpcpool-scale")

func (ch *channel) warn(msg string, args ...any) {
	if ch.logger != nil {
		ch.logger.Warn("scale: "+msg, args...)
		return
	}
	grpcLogger.Warning(append([]any{msg, ": "}, args...)...)
}

func (ch *channel) add(p *policy) {
	ch.mu.Lock()
	ch.policies[p] = struct{}{}
	ch.mu.Unlock()
	for _, r := range p.replacers() {
		r.add(p)
	}
}

func (ch *channel) remove(p *policy) {
	ch.mu.Lock()
	delete(ch.policies, p)
	ch.mu.Unlock()
	for _, r := range p.replacers() {
		r.remove(p)
	}
}
