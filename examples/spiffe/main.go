// Command spiffe calls a server with SPIFFE identities. This workload's X.509-SVID and
// the bundles that it trusts come from the Workload API (of a SPIRE agent, say), and
// the server must have the ID that -id names. SVIDs are valid for an hour or so; the
// pool's connections are replaced when there is a new one.
//
//	SPIFFE_ENDPOINT_SOCKET=unix:///run/spire/sockets/agent.sock \
//	  go run ./spiffe -address api.example.org:443 -id spiffe://example.org/api
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func main() {
	address := flag.String("address", "localhost:8443", "the server, as host:port or a gRPC target")
	id := flag.String("id", "spiffe://example.org/server", "the SPIFFE ID that the server must have")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *address, *id)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// run asks the server for its health every second until ctx ends.
func run(ctx context.Context, address, id string) error {
	server, err := spiffeid.FromString(id)
	if err != nil {
		return fmt.Errorf("reading -id: %w", err)
	}
	c, err := connect(ctx, address, server)
	if err != nil {
		return err
	}
	defer c.close() //nolint:contextcheck // ctx has ended by then
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		answer, err := healthpb.NewHealthClient(c.pool).Check(ctx, &healthpb.HealthCheckRequest{})
		fmt.Println(answer.GetStatus(), err)
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

// client is a pool whose connections show the workload's SVID.
type client struct {
	pool   *shared.Pool
	source *workloadapi.X509Source
	end    context.CancelFunc
	ended  chan struct{} // closed when follow has returned
}

// replaceWithin is how long the handshakes under a new SVID are spread out.
const replaceWithin = 15 * time.Second

// connect waits for the Workload API to give this workload an SVID, and returns a
// pool of connections to the server that has the ID.
func connect(ctx context.Context, address string, server spiffeid.ID, opts ...workloadapi.X509SourceOption) (*client, error) {
	source, err := workloadapi.NewX509Source(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("getting an SVID: %w", err)
	}
	// These credentials show the newest SVID in every handshake, and check the
	// server's ID instead of its host name.
	creds := grpccredentials.MTLSClientCredentials(source, source, tlsconfig.AuthorizeID(server))
	replacer := new(scale.Replacer)
	factory, err := grpcpool.NewFactory(address, creds, grpcpool.WithDialOptions(scale.WithReplacer(replacer))) //nolint:contextcheck // it takes none, and dials nothing
	if err != nil {
		_ = source.Close() // err says more
		return nil, err
	}
	following, end := context.WithCancel(context.WithoutCancel(ctx))
	c := &client{pool: shared.New(factory, 5*time.Minute), source: source, end: end, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		follow(following, source, replacer, replaceWithin)
	}()
	return c, nil
}

// follow replaces the connections whenever there is a new SVID or bundle, until ctx
// ends.
func follow(ctx context.Context, source *workloadapi.X509Source, replacer *scale.Replacer, within time.Duration) {
	for source.WaitUntilUpdated(ctx) == nil {
		replacer.Replace("new SVID or bundle", within)
	}
}

func (c *client) close() {
	_ = c.pool.Close() // waits for calls; it fails only if some had to be cut off
	c.end()
	<-c.ended
	_ = c.source.Close()
}
