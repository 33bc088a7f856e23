package shared

import (
	"testing"

	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/scale"
)

// A connection without a limit has the largest limit there is. Where an int has 32 bits
// (GOARCH=386) that is -1, and every connection would be full.
func TestAChannelIsFullOnlyIfNoConnectionHasAStreamToSpare(t *testing.T) {
	type connections = []scale.Connection
	subchannel := func(waiters int, c ...scale.Connection) scale.Subchannel {
		return scale.Subchannel{State: connectivity.Ready, Waiters: waiters, Connections: c}
	}
	for name, test := range map[string]struct {
		subchannels []scale.Subchannel
		want        bool
	}{
		"no subchannel":                    {nil, false},
		"no connection":                    {[]scale.Subchannel{subchannel(0)}, false},
		"a connection without a limit":     {[]scale.Subchannel{subchannel(0, connections{{InFlight: 1000, Limit: scale.Unlimited}}...)}, false},
		"above what 31 bits hold":          {[]scale.Subchannel{subchannel(0, connections{{InFlight: 1000, Limit: 1 << 31}}...)}, false},
		"one stream to spare":              {[]scale.Subchannel{subchannel(0, connections{{InFlight: 5, Limit: 5}, {InFlight: 4, Limit: 5}}...)}, false},
		"none to spare":                    {[]scale.Subchannel{subchannel(0, connections{{InFlight: 5, Limit: 5}, {InFlight: 5, Limit: 5}}...)}, true},
		"more than the limit":              {[]scale.Subchannel{subchannel(0, connections{{InFlight: 6, Limit: 5}}...)}, true},
		"calls wait":                       {[]scale.Subchannel{subchannel(1, connections{{InFlight: 4, Limit: 5}}...)}, true},
		"one of two addresses is full":     {[]scale.Subchannel{subchannel(1, connections{{InFlight: 5, Limit: 5}}...), subchannel(0, connections{{Limit: 5}}...)}, false},
		"one is full, one has no limit":    {[]scale.Subchannel{subchannel(0, connections{{InFlight: 5, Limit: 5}, {Limit: scale.Unlimited}}...)}, false},
		"a limit of 0, which a server may": {[]scale.Subchannel{subchannel(0, connections{{}}...)}, true},
	} {
		if got := full(scale.Channel{Subchannels: test.subchannels}); got != test.want {
			t.Errorf("%s: full is %v, want %v", name, got, test.want)
		}
	}
}
