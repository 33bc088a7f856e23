package scale

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/grpclog"

	"github.com/davidwartell/go-grpcpool/internal/event"
	"github.com/davidwartell/go-grpcpool/internal/logline"
)

// A channel with a logger logs its events, unless it belongs to a pool that does (see
// logline.Switch). That there is no connection is what the policy tells gRPC: a dial that
// failed says nothing yet, as there may be other addresses.

func (ch *channel) openLog() {
	if ch.logger == nil {
		return
	}
	if ch.log, ch.logger = logline.NewOfChannel(ch.logger, "scale: "); ch.log != nil {
		ch.log.Attrs = ch.logAttrs
	}
	ch.lines.Deliver = ch.writeLine
}

func (ch *channel) logAttrs() []slog.Attr { return []slog.Attr{slog.String(logline.Target, ch.target)} }

// logEvent has e logged. It may be called with any lock held.
func (ch *channel) logEvent(e Event, run func(deliver func()) bool) {
	if ch.log.Wants(e.Kind) {
		ch.lines.Add(e, run)
	}
}

// logStateLocked logs the beginning and the end of a time without a connection. The caller holds p.mu.
func (p *policy) logStateLocked(now connectivity.State) {
	if p.channel == nil || p.channel.log == nil || now == p.logged {
		return
	}
	p.logged = now
	switch now {
	case connectivity.TransientFailure:
		p.channel.logEvent(Event{Time: time.Now(), Kind: event.Failing}, p.tasks.run)
	case connectivity.Ready:
		p.channel.logEvent(Event{Time: time.Now(), Kind: event.Recovered}, p.tasks.run)
	case connectivity.Idle, connectivity.Connecting, connectivity.Shutdown:
	}
}

// logUnresolved logs that the resolver has found no address, unless it has before: then the
// channel has a policy, which goes on with what there is.
func (ch *channel) logUnresolved(err error) {
	if len(ch.livePolicies()) > 0 {
		return
	}
	ch.logEvent(Event{Time: time.Now(), Kind: event.Failing, Text: err.Error()}, func(deliver func()) bool {
		deliver() // here, as no policy waits for a goroutine
		return true
	})
}

// writeLine is called for one event at a time.
func (ch *channel) writeLine(e Event) {
	switch e.Kind {
	case EventDialFailed, EventLost, EventEjected:
		ch.logErr = e.Text
	case event.Failing:
		if e.Text == "" {
			e.Text = ch.whyFailing()
		}
	case event.Recovered:
		ch.logErr = ""
	default:
	}
	ch.log.Handle(e)
}

// whyFailing is why the channel has no connection: as its last dial ended, or as its policy
// says if there was none.
func (ch *channel) whyFailing() string {
	if ch.logErr != "" {
		return ch.logErr
	}
	for _, p := range ch.livePolicies() {
		if err := p.stateError(balancer.PickInfo{Ctx: context.Background()}); err != nil {
			return err.Error()
		}
	}
	return ""
}

// restLog is called when a policy has been closed.
func (ch *channel) restLog() {
	ch.lines.Flush()
	if len(ch.livePolicies()) == 0 {
		ch.log.Rest()
	}
}

var grpcLogger = grpclog.Component("grpcpool-scale")

// warnUntapped says once for the channel that it cannot scale.
func (s *subchannel) warnUntapped() {
	const (
		message = "the connections cannot be watched, so the channel works like a plain one"
		why     = "something between it and its SubConns drops NewSubConnOptions.CredsBundle"
		hint    = "update the LB policy or the resolver that wraps balancer.ClientConn, or leave it out"
	)
	ch := s.policy.channel
	ch.tapless.Do(func() {
		if ch.logger == nil {
			grpcLogger.Warningf("%s (%s, %s): %s; %s", message, ch.target, s.addr(), why, hint)
			return
		}
		ch.logger.Warn("scale: "+message, logline.Target, ch.target, logline.Address, s.addr(), logline.Error, why, logline.Hint, hint)
	})
}
