package alike_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// state is what a call finds.
type state struct {
	name   string
	before func(*world)  // brings the state about
	during func(*world)  // a second after the call has begun; may be nil
	hold   time.Duration // how long the server takes to answer

	patience time.Duration // the deadline of a call without another; 0: 8 s

	dial    []grpc.DialOption
	idle    time.Duration                                     // after which an unused channel is closed; 0: never
	asks    bool                                              // the pool is asked for leases as well
	server  func() grpcpooltest.Option                        // of the server; nil: none
	creds   func(*testing.T) credentials.TransportCredentials // of the client; nil: those that fit
	limited bool                                              // the server's limit on streams is 0
}

// patient is longer than a plain channel needs to find that a connection is dead, and that
// the next dial gets no answer: 11 s and 20 s.
const patient = 40 * time.Second

func states() []state {
	return []state{
		{name: "never connected", before: func(*world) {}},
		{name: "connecting", before: (*world).connecting},
		{name: "ready", before: (*world).mustCall},
		{name: "idle", before: func(w *world) { w.mustCall(); time.Sleep(time.Minute) }, idle: 10 * time.Second},
		{name: "ready, and lent", before: func(w *world) { w.mustCall(); w.mustBorrow() }, asks: true},
		{name: "lost", before: (*world).lose},
		{name: "lost under way", before: (*world).mustCall, during: func(w *world) { w.link.Reset() }, hold: 5 * time.Second},
		{name: "refused at first", before: func(w *world) { w.server.Stop() }},
		{name: "refused", before: (*world).refuse},
		{name: "refused, and not lent", before: func(w *world) { w.refuse(); _ = w.borrow(); _ = w.borrow() }, asks: true},
		{name: "refused for a while", before: (*world).refuseForAWhile, patience: patient},
		{name: "blackholed at first", before: func(w *world) { w.link.Blackhole() }, patience: patient},
		{name: "mute at first", before: func(w *world) { w.link.Hang() }, patience: patient},
		{name: "blackholed", before: func(w *world) { w.mustCall(); w.link.Blackhole() }, patience: patient},
		{name: "blackholed, with keepalive", before: func(w *world) { w.mustCall(); w.link.Blackhole() }, dial: keptAlive, patience: patient},
		{
			name: "wrong certificate", before: (*world).fail, creds: stranger,
			server: serveTLS,
		},
		{name: "limit 0", before: func(w *world) { w.begin(); time.Sleep(time.Second) }, limited: true},
		{name: "limit 0 for a while", before: func(w *world) {
			w.begin()
			time.Sleep(time.Second)
			time.AfterFunc(3*time.Second, func() { w.limits.SetLimit(10) })
		}, limited: true},
		{name: "replaced under way", before: (*world).mustCall, during: func(w *world) { w.server.GoAway() }, hold: 5 * time.Second},
		{
			name: "replaced by the pool under way", before: func(w *world) { w.mustBorrow(); time.Sleep(15 * time.Second); w.mustCall() },
			during: (*world).replace, hold: 5 * time.Second, asks: true, dial: untested,
		},
		{name: "closed, never connected", before: func(w *world) { _ = w.client.close() }},
		{name: "closed", before: func(w *world) { w.mustCall(); _ = w.client.close() }},
	}
}

// keptAlive has a plain channel notice, too, that a connection is dead.
var keptAlive = []grpc.DialOption{grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second})}

// untested leaves it to the pool to test its channel.
var untested = []grpc.DialOption{scale.WithProbeInterval(0)}

func (w *world) mustBorrow() {
	w.t.Helper()
	if err := w.borrow(); err != nil {
		w.t.Fatal(err)
	}
}

// replace has a pool find its channel sick, and put another in its place.
func (w *world) replace() {
	if w.client.pool == nil {
		return
	}
	w.sick.Store(true)
	for range 30 {
		time.Sleep(100 * time.Millisecond) // of the bubble
		if w.client.pool.Stats().Replaced > 0 || w.over.Load() {
			return
		}
	}
	w.t.Error("the pool did not replace its channel")
}

// begin makes a call that does not count, and does not wait for its end.
func (w *world) begin() {
	w.others.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		_, _ = w.call(ctx, false)
	})
}

// connecting has another call begin to connect on a slow network.
func (w *world) connecting() {
	w.link.Delay(100 * time.Millisecond)
	w.begin()
	time.Sleep(50 * time.Millisecond)
}

// lose ends the connection of a server that can be reached again.
func (w *world) lose() {
	w.mustCall()
	w.server.Stop()
	w.server.Start()
	w.settle()
}

// settle waits until everybody has noticed what has happened.
func (w *world) settle() {
	time.Sleep(10 * time.Millisecond) // of the bubble
	synctest.Wait()
}

// fail makes a call that fails.
func (w *world) fail() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	if _, err := w.call(ctx, false); err == nil {
		w.t.Fatal("a call that prepares the state succeeded")
	}
}

// refuse stops the server, which other callers have noticed.
func (w *world) refuse() {
	w.mustCall()
	w.server.Stop()
	w.settle()
	w.fail()
}

func (w *world) refuseForAWhile() {
	w.refuse()
	time.AfterFunc(3*time.Second, w.server.Start)
}

// certificates are the server's and those of another authority. Every bubble begins at the
// same time, so they are valid in each.
var certificates = sync.OnceValues(func() (server, other *grpcpooltest.Certs) {
	server, _ = grpcpooltest.NewCerts()
	other, _ = grpcpooltest.NewCerts()
	return server, other
})

// serveTLS is a server whose authority the client does not believe in.
func serveTLS() grpcpooltest.Option {
	server, _ := certificates()
	return grpcpooltest.WithCerts(server)
}

// stranger is a client that believes in another authority.
func stranger(t *testing.T) credentials.TransportCredentials {
	t.Helper()
	_, other := certificates()
	config, err := other.ClientTLS()
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName = "localhost"
	return credentials.NewTLS(config)
}
