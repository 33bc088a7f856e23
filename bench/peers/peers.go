// Package peers has ways of reaching a gRPC server, side by side: this library,
// plain channels, and the pools of others. Each is set as well as it can be for a
// server that is held to a number of connections; Settings says how.
package peers

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool"
)

// Client is a peer at work. Its methods may be called concurrently; Close waits
// for no call.
type Client interface {
	grpc.ClientConnInterface

	Close()
}

// Config is what a scenario asks of every peer alike.
type Config struct {
	Target string // a gRPC target

	// Creds are nil for a server that speaks plaintext.
	Creds credentials.TransportCredentials

	// Size is how many connections the peer may have to the server, for those that
	// have several. Exclusive ignores it.
	Size int

	// Options come after the peer's own.
	Options []grpc.DialOption

	// Factory is what the peer OneFactory makes its pools with; if it is nil, each pool
	// has its own.
	Factory *grpcpool.Factory
}

func (c Config) creds() credentials.TransportCredentials {
	if c.Creds == nil {
		return insecure.NewCredentials()
	}
	return c.Creds
}

// Peer is a way of reaching a server.
type Peer struct {
	Name     string
	Settings string // in words, for the report
	New      func(c Config) (Client, error)
}

// The names of the peers.
const (
	Pool       = "grpcpool"
	Scale      = "scale"
	Plain      = "plain"
	Defaults   = "defaults"
	RoundRobin = "roundrobin"
	Least      = "leastloaded"
	GCP        = "grpcgcp"
	API        = "googleapi"
	Exclusive  = "exclusive"

	// Those of "make quiet".
	OneFactory   = "onefactory"
	Unsupervised = "unsupervised"
	Keepalive    = "keepalive"
	Fixed100ms   = "backoff100ms"
	Fixed1s      = "backoff1s"
)

// all are the peers in the order of the tables.
var all = []Peer{
	{Pool, "this library: `shared.New` over `grpcpool.NewFactory`, RPCs made on the pool itself; its defaults, and `scale.WithMaxConnections(N)`", newPool},
	{Scale, "this library's channel alone: `scale.NewClient`; its defaults, and `scale.WithMaxConnections(N)`", newScale},
	{Plain, "one `grpc.NewClient`; " + tunedWords, newPlain},
	{Defaults, "one `grpc.NewClient` as it comes: no keepalive, backoff up to two minutes", newDefaults},
	{RoundRobin, "N such `grpc.NewClient` as plain, a call goes to the next", newRoundRobin},
	{Least, "N such `grpc.NewClient` as plain, a call goes to the one with the fewest under way", newLeastLoaded},
	{GCP, "github.com/GoogleCloudPlatform/grpc-gcp-go/grpcgcp: maxSize N, minSize 1, watermark 100 (its default, and the limit of the servers here), fallback_to_ready, unresponsive detection after 1 s and 3 calls; " + tunedWords, newGCP},
	{API, "google.golang.org/api/transport/grpc: `DialPool` with `WithGRPCConnectionPool(N)`, without authentication; " + tunedWords, newAPI},
	{Exclusive, "github.com/jolestar/go-commons-pool/v2 with channels in it, each lent to one call at a time; up to 100 of them whatever N is; " + tunedWords, newExclusive},
	{OneFactory, "grpcpool, with one factory for all its pools", newOneFactory},
	{Unsupervised, "scale with `scale.WithUnsupervised()`", newUnsupervised},
	{Keepalive, "defaults with keepalive 10 s, without streams too", newKeepalive},
	{Fixed100ms, "defaults with a backoff of 100 ms that does not grow; jitter 0.2", fixed(100 * time.Millisecond)},
	{Fixed1s, "defaults with a backoff of 1 s that does not grow; jitter 0.2", fixed(time.Second)},
}

// Named returns the peers of these names, in the order of the tables.
func Named(names ...string) []Peer {
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
	}
	found := make([]Peer, 0, len(names))
	for _, p := range all {
		if wanted[p.Name] {
			found = append(found, p)
		}
	}
	return found
}

// All returns every peer, in the order of the tables.
func All() []Peer { return append([]Peer(nil), all...) }

const tunedWords = "keepalive 10 s (the least that gRPC allows) and 3 s, without streams too; backoff 0.6 to 1 s"

// tuned are the settings with which a plain channel comes back soonest.
func tuned(c Config) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(c.creds()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 600 * time.Millisecond, Multiplier: 1.3, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, c.Options...)
}
