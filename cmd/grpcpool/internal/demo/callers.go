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
	book    *book
	cfg     Config

	quit    chan struct{}
	stopped sync.Once
	running sync.WaitGroup
}

func newCallers(client testpb.BenchmarkServiceClient, cfg Config, b *book) *callers {
	request := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: orders(cfg.Payload)}}
	return &callers{client: client, request: request, book: b, cfg: cfg, quit: make(chan struct{})}
}

// start lets them loose. Undone by stop.
func (c *callers) start(ctx context.Context) {
	for range c.cfg.Callers {
		c.running.Go(func() { c.loop(ctx) })
	}
}

// stop lets the calls under way end, and begins no more.
func (c *callers) stop() {
	c.stopped.Do(func() { close(c.quit) })
	c.running.Wait()
}

func (c *callers) loop(ctx context.Context) {
	for c.goOn(ctx) {
		began := time.Now()
		err := c.call(ctx)
		c.book.note(began, time.Now(), err)
		if err != nil {
			c.pause(ctx)
		}
	}
}

// goOn reports whether another call is wanted.
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
		return fmt.Errorf("the server answered with %d bytes that are not the %d that were sent", len(got), len(want))
	}
	return nil
}

// orders is text as services send it: n bytes of JSON, with keys that repeat and
// values that do not.
func orders(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same text each time
	names := []string{"anchor", "binnacle", "capstan", "davit", "fairlead", "halyard", "lanyard", "shackle"}
	var text strings.Builder
	for text.Len() < n {
		fmt.Fprintf(&text, `{"order_id":"%016x","item":%q,"quantity":%d,"price_cents":%d,"status":"shipped"},`,
			random.Uint64(), names[random.IntN(len(names))], 1+random.IntN(20), 100+random.IntN(100_000))
	}
	return []byte(text.String()[:n])
}
