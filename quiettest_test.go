package grpcpool_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/encoding/gzip" // for a program whose default it is
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// received is a stats handler of a server. It keeps the encodings and the metadata of the
// calls that arrive.
type received struct {
	mu        sync.Mutex // guards what follows
	encodings []string
	metadata  []metadata.MD
	smaller   int // messages that came compressed
}

func (*received) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (*received) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (*received) HandleConn(context.Context, stats.ConnStats) {}

func (r *received) HandleRPC(_ context.Context, s stats.RPCStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch s := s.(type) {
	case *stats.InHeader:
		r.encodings = append(r.encodings, s.Compression)
		r.metadata = append(r.metadata, s.Header)
	case *stats.InPayload:
		if s.CompressedLength != s.Length {
			r.smaller++
		}
	}
}

func hasToken(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	return len(md["authorization"]) > 0
}

func bearer(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer one user's")
}

// tests are the ways in which a factory tests a channel by itself.
func tests() map[string][]grpcpool.FactoryOption {
	return map[string][]grpcpool.FactoryOption{
		"HealthPing":      nil,
		"WithHealthCheck": {grpcpool.WithHealthCheck("a service with a name that is long enough for gzip to shrink it: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")},
	}
}

// testedBy makes a channel with a factory of these options, and tests it once more.
func testedBy(ctx context.Context, t *testing.T, opts ...grpcpool.FactoryOption) *received {
	t.Helper()
	seen := new(received)
	server := grpcpooltest.NewServer(t, grpcpooltest.WithoutHealth(), grpcpooltest.WithServerOptions(grpc.StatsHandler(seen)))
	f := plainFactory(t, server.Addr(), opts...)
	conn, err := f.NewConnection(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := f.ConnectionOk(ctx, conn); err != nil {
		t.Fatal(err)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if len(seen.encodings) < 2 {
		t.Fatalf("%d tests arrived, want two", len(seen.encodings))
	}
	return seen
}

// A server need not know the encoding that a program has chosen for its calls.
func TestATestIsNeverCompressed(t *testing.T) {
	for name, opts := range tests() {
		for from, opt := range map[string]grpc.DialOption{
			"a default of calls":          grpc.WithDefaultCallOptions(grpc.UseCompressor("gzip")),
			"a compressor of the channel": grpc.WithCompressor(grpc.NewGZIPCompressor()), //nolint:staticcheck // programs have it
		} {
			t.Run(name+", "+from, func(t *testing.T) {
				seen := testedBy(testContext(t), t, append(opts, grpcpool.WithDialOptions(opt))...)
				for _, encoding := range seen.encodings {
					if encoding != "" && encoding != "identity" {
						t.Errorf("a test came in the encoding %q", encoding)
					}
				}
				if seen.smaller > 0 {
					t.Errorf("%d messages came compressed", seen.smaller)
				}
			})
		}
	}
}

// The channel is for everyone, and so is its test.
func TestATestDoesNotCarryACallersMetadata(t *testing.T) {
	for name, opts := range tests() {
		t.Run(name, func(t *testing.T) {
			for _, md := range testedBy(bearer(testContext(t)), t, opts...).metadata {
				if len(md["authorization"]) > 0 {
					t.Errorf("a test carries %v", md)
				}
			}
		})
	}
}

// A PingFunc may have reasons to send metadata.
func TestAPingMayAddMetadataOfItsOwn(t *testing.T) {
	own := func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
		return grpcpool.HealthPing(metadata.AppendToOutgoingContext(ctx, "tenant", "probe"), conn)
	}
	found := 0
	for _, md := range testedBy(bearer(testContext(t)), t, grpcpool.WithPing(own)).metadata {
		if len(md["authorization"]) > 0 {
			t.Errorf("a test carries %v", md)
		}
		found += len(md["tenant"])
	}
	if found < 2 {
		t.Errorf("%d tests carry the metadata of the PingFunc, want two", found)
	}
}

// errNoToken is why the credentials of a test fail.
var errNoToken = errors.New("no token to be had")

// tokenless are credentials that fail in this process.
type tokenless struct{}

func (tokenless) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, errNoToken
}

func (tokenless) RequireTransportSecurity() bool { return false }

// Credentials that fail in this process say nothing about the peer.
func TestCredentialsThatFailLeaveTheConnectionAlone(t *testing.T) {
	for name, opts := range tests() {
		t.Run(name, func(t *testing.T) {
			server := grpcpooltest.NewServer(t)
			f := plainFactory(t, server.Addr(), append(opts,
				grpcpool.WithDialOptions(grpc.WithPerRPCCredentials(tokenless{}), scale.WithProbeInterval(0)))...)
			conn, err := f.NewConnection(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = f.ConnectionOk(testContext(t), conn)
			wantNotOK(t, err)
			wantError(t, err, "says nothing about the connection", errNoToken.Error())
			if s := conn.GetState(); s != connectivity.Ready || server.Accepted() != 1 {
				t.Errorf("the channel is %v, %d connections were made, want READY and 1", s, server.Accepted())
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not one line", err)
			}
		})
	}
}
