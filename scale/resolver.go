package scale

import (
	"encoding/json"
	"strings"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

// wrapResolver returns b, changed so that in every service config that its
// resolvers report the LB policy becomes the child of ours. Whether a builder
// has an OverrideAuthority changes what authority grpc-go sends, so the result
// has one only if b has.
func (ch *channel) wrapResolver(b resolver.Builder) resolver.Builder {
	wrapped := resolverBuilder{Builder: b, channel: ch}
	if o, ok := b.(resolver.AuthorityOverrider); ok {
		return overridingBuilder{wrapped, o}
	}
	return wrapped
}

type resolverBuilder struct {
	resolver.Builder

	channel *channel
}

type overridingBuilder struct {
	resolverBuilder
	resolver.AuthorityOverrider
}

// Build implements resolver.Builder.
func (b resolverBuilder) Build(target resolver.Target, cc resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	return b.Builder.Build(target, &resolverClientConn{cc, b.channel}, opts)
}

// resolverClientConn is what a wrapped resolver reports to.
type resolverClientConn struct {
	resolver.ClientConn

	channel *channel
}

// ParseServiceConfig implements resolver.ClientConn.
func (cc *resolverClientConn) ParseServiceConfig(js string) *serviceconfig.ParseResult {
	handle := openHandles.add(cc.channel)
	defer openHandles.remove(handle)
	return cc.ClientConn.ParseServiceConfig(rewrite(js, handle))
}

// openHandles leads from the handle in a service config to the channel that the
// service config is being parsed for. A parser is given text alone, so this is
// how a channel gets into the parsed config and from there to its policies. An
// entry lives as long as the call of the parser.
var openHandles = handles{channels: make(map[uint64]*channel)}

type handles struct {
	mu       sync.Mutex // guards all below
	last     uint64     // 0 is no handle
	channels map[uint64]*channel
}

func (h *handles) add(ch *channel) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.channels[h.last] = ch
	return h.last
}

func (h *handles) remove(handle uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.channels, handle)
}

// get is nil for a handle that is not open.
func (h *handles) get(handle uint64) *channel {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.channels[handle]
}

// rewrite returns the service config js with its LB policy as the child of ours
// and everything else as it was. Text that is no service config is returned
// as it is, and grpc-go finds the error.
//
// grpc-go takes the first policy in "loadBalancingConfig" that is registered, and
// without one the policy named by "loadBalancingPolicy". If that is ours already
// its config stays, with the handle added.
func rewrite(js string, handle uint64) string {
	var config map[string]json.RawMessage
	if json.Unmarshal([]byte(js), &config) != nil || config == nil {
		return js
	}
	var list, name json.RawMessage
	for key, value := range config { // encoding/json matches the names of fields so
		if strings.EqualFold(key, "loadBalancingConfig") {
			list = value
			delete(config, key)
		}
		if strings.EqualFold(key, "loadBalancingPolicy") {
			name = value
			delete(config, key)
		}
	}
	if list == nil || string(list) == "null" {
		list = policyNamed(name)
	}
	ours, ok := ownConfig(list)
	if !ok {
		ours = map[string]json.RawMessage{"childPolicy": list}
	}
	ours["handle"] = marshal(handle)
	config["loadBalancingConfig"] = marshal([]any{map[string]any{Name: ours}})
	return string(marshal(config))
}

// policyNamed is the "loadBalancingConfig" that says the same as a
// "loadBalancingPolicy", which may be missing or name a policy that is not
// registered.
func policyNamed(raw json.RawMessage) json.RawMessage {
	name := pickfirst.Name
	var given string
	if json.Unmarshal(raw, &given) == nil && balancer.Get(given) != nil {
		name = given
	}
	return marshal([]any{map[string]any{name: struct{}{}}})
}

// ownConfig is the config of our policy if that is what grpc-go would choose from
// the "loadBalancingConfig" list.
func ownConfig(list json.RawMessage) (map[string]json.RawMessage, bool) {
	var entries []map[string]json.RawMessage
	if json.Unmarshal(list, &entries) != nil {
		return nil, false
	}
	for _, entry := range entries {
		for name, raw := range entry {
			if balancer.Get(name) == nil {
				continue
			}
			var own map[string]json.RawMessage
			if name != Name || json.Unmarshal(raw, &own) != nil {
				return nil, false
			}
			if own == nil {
				own = make(map[string]json.RawMessage)
			}
			return own, true
		}
	}
	return nil, false
}

// marshal is json.Marshal for values that cannot fail: maps, strings, numbers and
// raw messages that were unmarshalled before.
func marshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("scale: cannot happen: " + err.Error())
	}
	return raw
}
