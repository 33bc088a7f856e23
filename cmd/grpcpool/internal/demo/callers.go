package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"
)

const callTimeout = 30 * time.Second

// callers call the server one after another until they are stopped.
type callers struct {
	client  testpb.BenchmarkServiceClient
	request *testpb.SimpleRequest
	record  *record
	cfg     Config

	quit    chan struct{}
	stopped sync.Once
	running sync.WaitGroup
}

func newCallers(client testpb.BenchmarkServiceClient, cfg Config, r *record) *callers {
	request := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: orders(cfg.Payload)}}
	return &callers{client: client, request: request, record: r, cfg: cfg, quit: make(chan struct{})}
}

// start starts all callers. Undone by stop.
func (c *callers) start(ctx context.Context) {
	for range c.cfg.Callers {
		c.running.Go(func() { c.loop(ctx) })
	}
}

// stop begins no more calls and waits for running ones.
func (c *callers) stop() {
	c.stopped.Do(func() { close(c.quit) })
	c.running.Wait()
}

func (c *callers) loop(ctx context.Context) {
	for c.goOn(ctx) {
		began := time.Now()
		err := c.call(ctx)
		c.record.note(began, time.Now(), err)
		if err != nil {
			c.pause(ctx)
		}
	}
}

// goOn reports whether to make another call.
func (c *callers) goOn(ctx context.Context) bool {
	select {
	case <-c.quit:
		return false
	default:
		return ctx.Err() == nil
	}
}

func (c *callers) pause(ctx context.Context) {
	timer := time.NewTimer(c.cfg.retryPause())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.quit:
	case <-ctx.Done():
	}
}

// call makes one call and checks its answer.
func (c *callers) call(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.client.UnaryCall(ctx, c.request)
	if err != nil {
		return err
	}
	want, got := c.request.GetPayload().GetBody(), answer.GetPayload().GetBody()
	if string(got) != string(want) {
		return fmt.Errorf("the answer (%d bytes) differs from the request (%d bytes)", len(got), len(want))
	}
	return nil
}

// orders returns n bytes of JSON as services send it: keys repeat, values do not.
func orders(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the text is the same each time
	names := []string{"anchor", "binnacle", "capstan", "davit", "fairlead", "halyard", "lanyard", "shackle"}
	var text strings.Builder
	for text.Len() < n {
		fmt.Fprintf(&text, `{"order_id":"%016x","item":%q,"quantity":%d,"price_cents":%d,"status":"shipped"},`,
			random.Uint64(), names[random.IntN(len(names))], 1+random.IntN(20), 100+random.IntN(100_000))
	}
	return []byte(text.String()[:n])
}
