package grpcpool

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/handshake"
	"github.com/davidwartell/go-grpcpool/internal/told"
	"github.com/davidwartell/go-grpcpool/scale"
)

// firstPatience is how long firstPing waits before it sends a second ping. A connection
// that does not answer has a successor by then (see package scale), to which the second
// ping goes. The first may still be answered.
const firstPatience = 1500 * time.Millisecond

// firstPing pings conn until one ping ends. It sends a further ping after firstPatience,
// and another each time that twice as long has passed. The channel is kept if the ping
// said nothing about the connection although there was time for it.
func (f *Factory) firstPing(ctx context.Context, conn *grpc.ClientConn, observer *scale.Observer) error {
	pings, cancel := context.WithCancel(ctx)
	if observer.Supervised() {
		pings = told.WithProof(pings, observer.LastProof)
	}
	first := firstAnswer{ping: func() error { return f.ConnectionOk(pings, conn) }, cancel: cancel}
	first.further(firstPatience)
	first.run() // on this goroutine: its stack has grown, and usually no other is needed
	err := first.wait()
	var unsure *answer.NoVerdictError
	if ctx.Err() == nil && errors.As(err, &unsure) {
		if unsure.Alive {
			return nil // noteMute has noted it
		}
		f.noteUnsure(ctx, err)
		return nil
	}
	return err
}

// firstAnswer is how the first of several pings has ended.
type firstAnswer struct {
	ping   func() error
	cancel func() // ends the others

	mu      sync.Mutex // guards what follows
	ended   bool
	err     error
	timer   *time.Timer // begins the next ping
	running sync.WaitGroup
}

// further begins another ping after the given time, and others after twice as long each. It
// returns false if no ping is needed any more.
func (a *firstAnswer) further(patience time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return false
	}
	a.running.Add(1)
	a.timer = time.AfterFunc(patience, func() {
		defer a.running.Done()
		if a.further(2 * patience) {
			a.run()
		}
	})
	return true
}

// run makes one ping.
func (a *firstAnswer) run() {
	err := a.ping()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return
	}
	a.ended, a.err = true, err
	if a.timer.Stop() {
		a.running.Done()
	}
	a.cancel()
}

// wait waits until no ping runs.
func (a *firstAnswer) wait() error {
	a.running.Wait()
	return a.err
}

// connect waits until conn is READY, or until every address has been tried once and no
// handshake is late. One that is late keeps its place in the server's queue: callers who do
// not wait are told by way of the context, and the dial goes on.
func (f *Factory) connect(ctx context.Context, conn *grpc.ClientConn, progress *handshake.Progress, observer *scale.Observer) error {
	conn.Connect()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure:
			if err := lastConnectionError(ctx, conn, observer); err != nil {
				err = f.notConnected(progress, asMet(err, observer.LastErrors()))
				if !handshakeIsLate(observer) {
					return err
				}
				told.TellLate(ctx, err)
				waitForHandshake(ctx, conn, observer)
			}
			if ctx.Err() == nil {
				continue
			}
		case connectivity.Idle:
			if !progress.Reached() {
				return f.connectByCall(ctx, conn, progress, observer)
			}
			// The server has closed the connection already. Connecting again at once
			// would be a dial loop.
			return f.notConnected(progress, errHungUp)
		case connectivity.Shutdown:
			return f.notConnected(progress, errHungUp)
		case connectivity.Connecting:
		}
		if !conn.WaitForStateChange(ctx, state) {
			return f.notConnected(progress, progress.Explain(context.Cause(ctx)))
		}
	}
}

// handshakeIsLate reports whether a handshake is late and goes on.
func handshakeIsLate(observer *scale.Observer) bool {
	return slices.ContainsFunc(observer.Snapshot().Subchannels, func(s scale.Subchannel) bool { return s.Late > 0 })
}

// waitForHandshake waits while conn has no connection and a handshake is late. It asks for
// one, like a call that waits: package scale dials beside the handshake in the end.
func waitForHandshake(ctx context.Context, conn *grpc.ClientConn, observer *scale.Observer) {
	for changed := false; !changed && ctx.Err() == nil && handshakeIsLate(observer); {
		conn.Connect()
		look, cancel := context.WithTimeout(ctx, lateLook)
		changed = conn.WaitForStateChange(look, connectivity.TransientFailure)
		cancel()
	}
}

// lateLook is how often it is asked whether a handshake that is late has failed: the
// channel stays in TRANSIENT_FAILURE then.
const lateLook = 250 * time.Millisecond

// notConnected is the error of a dial that has failed for the given reason.
func (f *Factory) notConnected(progress *handshake.Progress, why error) error {
	return &connectionError{doing: connecting, target: f.target, cause: why, unreached: !progress.Reached()}
}

// connectByCall makes a call, to connect a channel that is still IDLE after Connect: some
// LB policies connect on demand, such as ring_hash and rls.
func (f *Factory) connectByCall(ctx context.Context, conn *grpc.ClientConn, progress *handshake.Progress, observer *scale.Observer) error {
	err := errorOfCall(ctx, conn)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return f.notConnected(progress, progress.Explain(context.Cause(ctx)))
	default:
		return f.notConnected(progress, asMet(err, observer.LastErrors()))
	}
}

var errHungUp = errors.New("the server closed the connection as soon as it was established")

// lastConnectionError is why a channel in TRANSIENT_FAILURE has no connection. It is
// nil if the channel has recovered meanwhile.
func lastConnectionError(ctx context.Context, conn *grpc.ClientConn, observer *scale.Observer) error {
	if err := observer.PickError(ctx, healthpb.Health_Check_FullMethodName); err != nil {
		return err
	}
	// The state is not from a policy of package scale. grpc-go tells its reason only in
	// the error of an RPC, which passes the program's interceptors and retry policy: they
	// may take long.
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return errorOfCall(ctx, conn)
}

// errorOfCall makes a fail-fast call and returns its error, or nil if the channel is
// READY after it.
func errorOfCall(ctx context.Context, conn *grpc.ClientConn) error {
	ctx = metadata.NewOutgoingContext(ctx, nil)
	err := conn.Invoke(ctx, healthpb.Health_Check_FullMethodName, &healthpb.HealthCheckRequest{}, new(healthpb.HealthCheckResponse), answer.Fixed()...)
	if conn.GetState() == connectivity.Ready {
		return nil
	}
	return err
}

// asMet returns the dial error that the status of an RPC was made from, or the status if
// it is not among met. A status has the words only; errors.Is and errors.As find nothing
// in it.
func asMet(rpc error, met []error) error {
	for _, err := range met {
		if strings.Contains(rpc.Error(), err.Error()) {
			return err
		}
	}
	return rpc
}

// askTimeout is how long a channel may take to say why it has no connection.
const askTimeout = time.Second
