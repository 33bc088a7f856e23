package grpcpool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/health"
	"github.com/davidwartell/go-grpcpool/internal/told"
)

// PingFunc asks the server behind conn for a sign of life and returns how long
// the answer took. It must return when ctx ends, must not close conn, and may be
// called concurrently. It should make an RPC, and leave HTTP/2 PING frames to grpc-go's
// keepalive, which sends no more of them than servers allow (gRFC A8).
//
// An error means that conn must not be used. So take any answer for a sign of life, also
// that the server wants a token, is too busy, or does not know the method: another
// connection would get the same. Return an error for an answer only if no caller could
// use a server that gives it.
//
// A Factory calls it with a context that has no outgoing metadata, so that what one caller
// sends is not sent with the tests of a channel that others share. It may add its own.
type PingFunc func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error)

// HealthPing is a PingFunc that calls Check of grpc.health.v1.Health for the
// empty service, which means the whole server. The server is alive if it answers, with any
// status of gRPC or of health: also one that does not implement the service, wants a
// token, is too busy, is UNAVAILABLE or NOT_SERVING has answered, and calls on a plain
// channel would reach it. WithHealthCheck also asks whether it serves.
//
// Two answers are errors, as no gRPC server has given them: an HTTP error of 500 and above
// that is not gRPC's, such as a proxy's 502 or 503, means that there is no server behind
// it, and an HTTP page that refuses the client's certificate, as nginx has one, that no
// call would be answered.
//
// No answer is an error too, as the call returned it. But a call that was not sent says
// nothing about the connection: every stream was taken, or the program's own credentials
// or interceptors failed. Nor does an HTTP answer below 500, such as 404: a proxy may
// forward other methods to a gRPC server. The error says so, and a Factory then returns
// the channel although the ping was not answered.
//
// A Factory without WithPing and WithHealthCheck goes further: if a channel that watches
// its own connections (see Supervisor) has proved that it lives since the ping was sent, a
// ping without an answer says nothing about it either, as only the health service may hang.
// That is found out after half a second, or half of the time that there is if that is less,
// or as soon as there is such a proof; the channel is kept, and the log has a warning. Until
// the health service answers again, a proof of the last 5 s is enough, as it is for a call.
//
// The call is not compressed, is encoded as protobuf and does not wait for a connection,
// whatever the program has set as the default for its calls.
func HealthPing(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	return health.Ping(ctx, conn)
}

// servicePing is the PingFunc of WithHealthCheck.
func servicePing(service string) PingFunc {
	return func(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
		return health.Check(ctx, conn, service)
	}
}

const (
	// A ping may be without an answer for proofPatience, or half of the time that there is,
	// before the channel's own proof counts. It may be so for mutePatience only if the ping
	// before it had none either.
	proofPatience = 500 * time.Millisecond
	mutePatience  = 50 * time.Millisecond

	// provedEnough is the age of a proof up to which package scale puts a call on a
	// connection that was quiet.
	provedEnough = 5 * time.Second

	proofPoll = 20 * time.Millisecond
)

var errAlive = errors.New("the channel has proved that it lives")

// pingOrProof is the PingFunc of a Factory that was given none. It is HealthPing, and ends
// without a verdict if there is no answer though the channel has proved since its beginning
// that it lives. While the health service is mute, a proof that is enough for a call is
// enough for it.
func (f *Factory) pingOrProof(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	lastProof := told.Proof(ctx)
	if lastProof == nil {
		return HealthPing(ctx, conn)
	}
	start, before, patience := time.Now(), lastProof(), proofPatience
	alive := func() bool { // by something that was sent after start
		at := lastProof()
		return at.After(before) && !at.Before(start)
	}
	if f.mute.Load() {
		if start.Sub(before) < provedEnough {
			return 0, mute(0, errAlive)
		}
		patience = mutePatience
	}
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, deadline.Sub(start)/2)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var looking sync.WaitGroup
	looking.Add(1)
	timer := time.AfterFunc(patience/2, func() {
		defer looking.Done()
		if awaitProof(ctx, conn, alive, start.Add(patience)) {
			cancel(errAlive)
		}
	})
	took, err := HealthPing(ctx, conn)
	if timer.Stop() {
		return took, err
	}
	cancel(nil) // unless it has been ended
	looking.Wait()
	if ended := ctx.Err() != nil && (status.Code(err) == codes.Canceled || status.Code(err) == codes.DeadlineExceeded); ended && alive() {
		return took, mute(took, err)
	}
	return took, err
}

// mute is the error of a ping without an answer on a channel that lives.
func mute(took time.Duration, err error) error {
	return &answer.NoVerdictError{Err: err, Alive: true, Text: fmt.Sprintf(
		"the health check has no answer after %v, though the connection lives; %s", took.Round(time.Millisecond), adviceMute)}
}

const adviceMute = "have the server answer it (with any status), or ping by a method of its own (WithPing)"

// awaitProof waits until alive and until the given time, or until ctx ends. Another call, which has no priority,
// makes the channel prove a connection that was quiet.
func awaitProof(ctx context.Context, conn *grpc.ClientConn, alive func() bool, until time.Time) bool { //nolint:contextcheck // see asking
	asking, end := context.WithCancel(context.Background()) // without the ping's priority
	defer context.AfterFunc(ctx, end)()
	var asked sync.WaitGroup
	asked.Go(func() { _, _ = HealthPing(asking, conn) }) // what counts is that it was sent
	defer asked.Wait()
	defer end()
	poll := time.NewTicker(proofPoll)
	defer poll.Stop()
	for time.Now().Before(until) || !alive() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
