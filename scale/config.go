package scale

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/serviceconfig"
)

// Name is the name of the LB policy. [NewClient] sets it for its channels. A service
// config or an xDS control plane may name it where NewClient is not used:
//
//	{"loadBalancingConfig": [{"grpcpool_scale": {
//	  "maxConnectionsPerSubchannel": 4,
//	  "childPolicy": [{"round_robin": {}}]
//	}}]}
//
// All fields are optional. A field takes the place of the dial option with the same
// meaning. A value that is out of range makes the service config invalid.
//
//   - maxConnectionsPerSubchannel, 1 or more: see [WithMaxConnections]. A value above
//     that option's, or above 10 where NewClient is not used, counts as that. This field
//     is gRFC A105's; the others are this package's.
//   - maxStreamsPerConnection, 0 or more: see [WithMaxStreams].
//   - streamsPerUnlimitedConnection, 0 or more: see
//     [WithStreamsPerUnlimitedConnection].
//   - shrinkAfter, a duration as in the JSON of protobuf, such as "90s" or "0.5s": see
//     [WithShrinkAfter].
//   - childPolicy, a list like loadBalancingConfig: the first policy in it that is
//     registered becomes the child; without the field it is pick_first.
//
// Unknown fields are ignored.
const Name = "grpcpool_scale"

// config is a parsed config of the policy.
type config struct {
	serviceconfig.LoadBalancingConfig

	channel  *channel // nil when the policy was chosen without NewClient
	settings settings

	childBuilder balancer.Builder
	childConfig  serviceconfig.LoadBalancingConfig // may be nil
}

// jsonConfig is the config as it is written. Numbers are pointers, to tell 0 from a
// missing field, and of 64 bits, so that an error can quote what is out of range.
type jsonConfig struct {
	MaxConnections   *int64          `json:"maxConnectionsPerSubchannel"`
	MaxStreams       *int64          `json:"maxStreamsPerConnection"`
	UnlimitedStreams *int64          `json:"streamsPerUnlimitedConnection"`
	ShrinkAfter      *string         `json:"shrinkAfter"`
	ChildPolicy      json.RawMessage `json:"childPolicy"`
	Handle           uint64          `json:"handle"` // set by rewrite, see openHandles
}

// maxNumber is the largest value of a UInt32Value, the type of gRFC A105's field.
const maxNumber = 1<<32 - 1

// ParseConfig implements balancer.ConfigParser. Unknown fields are ignored, as
// that interface asks.
func (builder) ParseConfig(raw json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	var js jsonConfig
	if err := json.Unmarshal(raw, &js); err != nil {
		return nil, fmt.Errorf("scale: the config of %s: %w", Name, err)
	}
	c := &config{settings: defaultSettings(), channel: openHandles.get(js.Handle)}
	if c.channel != nil {
		c.settings = c.channel.settings
	}
	if err := js.apply(&c.settings); err != nil {
		return nil, err
	}
	var err error
	if c.childBuilder, c.childConfig, err = parseChild(js.ChildPolicy); err != nil {
		return nil, err
	}
	if c.channel != nil {
		c.channel.configured.Store(true)
	}
	return c, nil
}

// apply sets in s what the config sets.
func (js *jsonConfig) apply(s *settings) error {
	bound := s.maxConnections
	for _, f := range []struct {
		name string
		from *int64
		to   *int
		min  int64
	}{
		{"maxConnectionsPerSubchannel", js.MaxConnections, &s.maxConnections, 1},
		{"maxStreamsPerConnection", js.MaxStreams, &s.maxStreams, 0},
		{"streamsPerUnlimitedConnection", js.UnlimitedStreams, &s.unlimitedStreams, 0},
	} {
		if f.from == nil {
			continue
		}
		if *f.from < f.min || *f.from > maxNumber {
			return fmt.Errorf("scale: %s is %d, want %d to %d", f.name, *f.from, f.min, int64(maxNumber))
		}
		*f.to = int(min(*f.from, math.MaxInt32))
	}
	s.maxConnections = min(s.maxConnections, bound)
	if js.ShrinkAfter == nil {
		return nil
	}
	d, err := parseDuration(*js.ShrinkAfter)
	if err != nil {
		return err
	}
	s.shrinkAfter = min(d, longest)
	return nil
}

// parseDuration reads a duration as in the JSON of protobuf: seconds, with or without
// decimals, and an "s".
func parseDuration(text string) (time.Duration, error) {
	number, ok := strings.CutSuffix(text, "s")
	d, err := time.ParseDuration(text)
	if !ok || err != nil || d < 0 || strings.Trim(number, "0123456789.") != "" {
		return 0, fmt.Errorf(`scale: shrinkAfter is %q, want seconds such as "90s" or "0.5s"`, text)
	}
	return d, nil
}

// parseChild finds the first policy of the list that is registered.
func parseChild(raw json.RawMessage) (balancer.Builder, serviceconfig.LoadBalancingConfig, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return balancer.Get(pickfirst.Name), nil, nil
	}
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, nil, fmt.Errorf("scale: childPolicy: want a list of policies: %w", err)
	}
	var unknown []string
	for i, entry := range list {
		if len(entry) != 1 {
			return nil, nil, fmt.Errorf("scale: childPolicy[%d]: want an object with one policy, got one with %d", i, len(entry))
		}
		for name, raw := range entry {
			b := balancer.Get(name)
			if b == nil {
				unknown = append(unknown, name)
				continue
			}
			child, err := parseChildConfig(b, raw)
			return b, child, err
		}
	}
	return nil, nil, fmt.Errorf("scale: childPolicy: none of %q is registered in this program; import the package that registers it", unknown)
}

func parseChildConfig(b balancer.Builder, raw json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	if b.Name() == Name {
		return nil, errors.New("scale: childPolicy: " + Name + " cannot be its own child")
	}
	parser, ok := b.(balancer.ConfigParser)
	if !ok {
		return nil, nil //nolint:nilnil // a policy without a config has none
	}
	c, err := parser.ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("scale: childPolicy: the config of %s: %w", b.Name(), err)
	}
	return c, nil
}
