package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"

	"github.com/davidwartell/go-grpcpool/internal/event"
)

// NewClient makes a channel as grpc.NewClient does, with the difference that this
// package describes: it may have several connections to an address, and watches them. It
// takes every dial option of grpc.NewClient, and those of this package. It does not
// connect; the first call does.
//
// The LB policy that a service config names, the resolver's or the program's own,
// becomes the child of [Name]; the rest of the service config stays as it is.
//
// NewClient returns grpc.NewClient's errors, an error for an option of this package
// whose argument is nil or out of range, and an error for a default service config that
// it cannot read (see the package documentation). The errors begin with "scale:".
func NewClient(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	if i := slices.Index(opts, nil); i >= 0 {
		return nil, fmt.Errorf("scale: NewClient: dial option %d of %d is nil", i+1, len(opts))
	}
	plain, sealed := seeThrough(opts)
	o, err := gather(plain)
	if err != nil {
		return nil, err
	}
	ch := newChannel(o)
	ch.target = target
	if err := o.observer.attach(ch); err != nil {
		return nil, err
	}
	theirs, ok := inspect(plain)
	if !ok && sealed == nil {
		sealed = errors.New("scale: the dial options of this version of grpc-go cannot be read")
	}
	opts = o.wrap(ch, target, opts, theirs)

	handle := openHandles.add(ch)
	defer openHandles.remove(handle)
	serviceConfig := grpc.WithDefaultServiceConfig(o.defaultServiceConfig(handle))
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
			sealed = errors.New("scale: this program adds dial options to grpc-go globally, which cannot be read")
		}
		return nil, fmt.Errorf("%w, and it sets a default service config; use scale.WithDefaultServiceConfig instead", sealed)
	}
	return cc, nil
}

// defaultServiceConfig returns the program's own with this policy in it, or one that sets
// nothing but this policy. handle leads to the channel.
func (o *clientOptions) defaultServiceConfig(handle uint64) string {
	if o.serviceConfig != nil {
		return rewrite(*o.serviceConfig, handle)
	}
	return `{"loadBalancingConfig": [{"` + Name + `": {"handle": ` + strconv.FormatUint(handle, 10) + `}}]}`
}

// wrap returns opts with every resolver that target may need wrapped, and notes the
// program's default service config in o. theirs is what could be read of opts. If an
// option could not be read, it still has its effect in grpc-go: the service config of a
// resolver in it replaces this policy instead of becoming its child. NewClient refuses a
// default service config in such an option.
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

// schemes returns the schemes by which grpc.NewClient may resolve target: its own, and
// the default ones, for a target without a scheme or with one that is not registered.
func schemes(target string) []string {
	defaults := []string{"dns", resolver.GetDefaultScheme()}
	if u, err := url.Parse(target); err == nil && u.Scheme != "" {
		return append([]string{strings.ToLower(u.Scheme)}, defaults...)
	}
	return defaults
}

// channel is the state of a ClientConn that outlives its LB policies, which grpc-go
// closes whenever the ClientConn goes idle.
type channel struct {
	settings  settings
	target    string
	logger    *slog.Logger // nil: grpc-go's own log
	log       *channelLog  // of events; nil without a logger, or if somebody else logs them
	memory    *Memory
	budget    *DialBudget                                           // nil: none
	ask       func(context.Context, grpc.ClientConnInterface) error // nil: the health service
	hooks     []func(Event)                                         // of WithEvents
	events    event.Queue
	replacers []*Replacer

	connections atomic.Uint64 // made so far; the ID of the latest

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
	ch := &channel{
		memory:    memory,
		budget:    o.budget,
		ask:       o.ask,
		settings:  o.settings,
		logger:    o.logger,
		hooks:     o.onEvent,
		replacers: o.replacers,
		policies:  make(map[*policy]struct{}),
	}
	ch.events.Deliver = ch.callHooks
	ch.openLog()
	return ch
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
