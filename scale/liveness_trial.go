package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
)

// A handshake does not prove that the server accepts the client's certificate. Under TLS
// 1.3 the client has finished before the server has looked at it. nginx completes the
// handshake with a certificate that it does not trust, begins HTTP/2, and answers every
// request with 400. So a successor has to answer a probe, with any gRPC status, before it
// takes its predecessor's place.
//
// Not every good server answers a probe by gRPC: a proxy may have no route for the health
// service, or the service may be slow. Then the predecessor is asked the same. A successor
// that does no worse than its predecessor takes its place. Otherwise the successor is
// closed, and another is dialled after a pause.
//
// If the predecessor is replaced because it does not answer (see liveness_inquiry.go), the
// successor has to do better. If it is as silent, the server is slow, and nothing changes.
// If the predecessor is silent when the successor has answered, the successor waits for the
// verdict on it (see liveness_silence.go).
//
// If probes are turned off, a successor takes over when it is READY.

// putOnTrialLocked puts c, which has become READY, on trial if it is to succeed another
// connection. It is false if c can be put to use at once.
func (s *subchannel) putOnTrialLocked(c *connection, e *effects) bool {
	old := c.predecessor
	if old == nil || old.phase != phaseReady || s.policy.settings.Load().probeInterval <= 0 || !c.tap.Attached() {
		return false
	}
	c.moveLocked(phaseTrial)
	patience := min(old.patienceLocked(s.policy.settings.Load().probeTimeout)<<min(old.replace.failures, mostDoublings),
		mostPatience*s.policy.settings.Load().probeTimeout)
	stuck := old.replace.provisional() || old.doubt == doubtSilent
	e.run = append(e.run, func() { s.runTrial(c, old, patience, stuck) })
	return true
}

// runTrial has c answer, and decides whether it succeeds old.
func (s *subchannel) runTrial(c, old *connection, patience time.Duration, stuck bool) {
	begun := c.now()
	err := c.compare(old, patience, stuck)
	s.update(func(e *effects) {
		if c.hasAnswered.Load() {
			raise(&c.aliveAt, int64(begun))
		}
		switch {
		case c.phase != phaseTrial: // it was lost or dropped, or put to use when old was lost
		case old.doubt == doubtSilent && c.hasAnswered.Load():
			c.passed = true
			select {
			case old.nudge <- struct{}{}:
			default:
			}
		case old.replace.why == whySilent:
			s.successorFailedLocked(c)
			s.retireLocked(c, e)
		case err == nil:
			s.putToUseLocked(c)
			s.takeOverLocked(c, e)
			e.serve = true
		case old.replace.why == whyStuck:
			c.predecessor, old.replace = nil, replacement{}
			s.planByAgeLocked(old)
			s.armReplaceLocked()
			s.retireLocked(c, e)
		default:
			s.lastErr = err
			s.stats.failed++
			s.event(EventDialFailed, c, time.Since(c.dialledAt), oneLine(err))
			s.successorFailedLocked(c)
			s.retireLocked(c, e)
		}
	})
}

// compare returns nil if c answers or, unless old is stuck, if c does no worse than old.
// Otherwise it returns why c is not to take the place of old.
func (c *connection) compare(old *connection, patience time.Duration, stuck bool) error {
	c.streams.Add(1) // no call can have it yet
	got, said := c.examine(patience)
	c.release()
	if got.Kind == answer.GRPC {
		c.hasAnswered.Store(true)
		return nil
	}
	if !stuck && old.takeForProbe() {
		same, _ := old.examine(patience)
		old.release()
		if same == got {
			return nil
		}
	}
	if said != nil {
		return fmt.Errorf("scale: replacing the connection to %s: the new one failed its check (%w); keeping the old one", c.sub.addr(), said)
	}
	return fmt.Errorf("scale: replacing the connection to %s: the new one failed its check (%v); keeping the old one", c.sub.addr(), got)
}

// examine makes the RPC of a probe on c, and returns how it was answered. said is the error
// of WithProbe's function, if that is not a status. examine does not wait for a function
// or for credentials that go on long after their context has ended.
func (c *connection) examine(patience time.Duration) (got answer.Answer, said error) {
	ctx, cancel := context.WithTimeout(c.sub.policy.ctx, patience)
	defer cancel()
	done := make(chan struct{}) // got and said are not to be read before
	var answered answer.Answer
	var words error
	if !c.sub.policy.tasks.run(func() { defer close(done); answered, words = c.examineOnce(ctx) }) {
		return answer.Answer{}, nil // the channel is closing
	}
	timer := time.NewTimer(patience + stalled)
	defer timer.Stop()
	select {
	case <-done:
		return answered, words
	case <-timer.C:
		return answer.Answer{Kind: answer.Unsent}, nil
	}
}

func (c *connection) examineOnce(ctx context.Context) (got answer.Answer, said error) {
	cc, unref := c.sc.GetOrBuildProducer(directBuilder{})
	defer unref()
	direct, ok := cc.(grpc.ClientConnInterface)
	if !ok {
		return answer.Answer{Kind: answer.GRPC}, nil // this grpc-go has no such thing
	}
	heard := &askedConn{ClientConnInterface: direct}
	if ask := c.sub.policy.channel.ask; ask != nil {
		err := ask(ctx, heard)
		if err == nil {
			return answer.Answer{Kind: answer.GRPC}, nil
		}
		if _, isStatus := status.FromError(err); !isStatus {
			return answer.Answer{}, err
		}
		return heard.last, nil
	}
	_ = heard.Invoke(ctx, healthpb.Health_Check_FullMethodName, &healthpb.HealthCheckRequest{}, new(healthpb.HealthCheckResponse), answer.Fixed()...)
	return heard.last, nil
}

// askedConn makes unary RPCs on one connection and notes how the last was answered. It is
// for one goroutine.
type askedConn struct {
	grpc.ClientConnInterface

	last answer.Answer
}

// NewStream implements grpc.ClientConnInterface.
func (a *askedConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return a.ClientConnInterface.NewStream(asProbe(ctx), desc, method, opts...) //nolint:wrapcheck // the RPC's status
}

// Invoke implements grpc.ClientConnInterface.
func (a *askedConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	stream, err := a.NewStream(ctx, new(grpc.StreamDesc), method, opts...)
	if err == nil {
		if err = stream.SendMsg(args); err == nil || errors.Is(err, io.EOF) { // EOF: the stream has ended, and RecvMsg says how
			err = stream.RecvMsg(reply)
		}
	}
	a.last = answer.OfStream(stream, err)
	return err //nolint:wrapcheck // the RPC's status
}
