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

// channelLog logs the events of a channel that has a logger, unless its pool does (see
// logline.Switch). That there is no connection is what the policy tells gRPC: a dial that
// failed says nothing yet, as there may be other addresses.
type channelLog struct {
	*logline.Log

	channel *channel
	queue   event.Queue // what the Log is to be given
	err     string      // the latest; for the goroutine that delivers
}

func (ch *channel) openLog() {
	if ch.logger == nil {
		return
	}
	log, logger := logline.NewOfChannel(ch.logger, "scale: ")
	ch.logger = logger
	if log == nil {
		return
	}
	log.Attrs = func() []slog.Attr { return []slog.Attr{slog.String(logline.Target, ch.target)} }
	ch.log = &channelLog{Log: log, channel: ch}
	ch.log.queue.Deliver = ch.log.deliver
}

// add has e logged, on a goroutine that run starts. It may be called with any lock held. A nil
// log adds nothing.
func (l *channelLog) add(e Event, run func(deliver func()) bool) {
	if l != nil && l.Wants(e.Kind) {
		l.queue.Add(e, run)
	}
}

// logStateLocked logs the beginning and the end of a time without a connection. The caller
// holds p.mu.
func (p *policy) logStateLocked(now connectivity.State) {
	if p.channel == nil || p.channel.log == nil || now == p.logged {
		return
	}
	p.logged = now
	switch now {
	case connectivity.TransientFailure:
		p.channel.log.add(Event{Time: time.Now(), Kind: event.Failing}, p.tasks.run)
	case connectivity.Ready:
		p.channel.log.add(Event{Time: time.Now(), Kind: event.Recovered}, p.tasks.run)
	case connectivity.Idle, connectivity.Connecting, connectivity.Shutdown:
	}
}

// addUnresolved logs that the resolver has found no address, unless it has before: then the
// channel has a policy, which goes on with what there is.
func (l *channelLog) addUnresolved(err error) {
	if l == nil || len(l.channel.livePolicies()) > 0 {
		return
	}
	l.add(Event{Time: time.Now(), Kind: event.Failing, Text: err.Error()}, func(deliver func()) bool {
		deliver() // here, as no policy waits for a goroutine
		return true
	})
}

// deliver is called for one event at a time.
func (l *channelLog) deliver(e Event) {
	switch e.Kind {
	case EventDialFailed, EventLost, EventEjected:
		l.err = e.Text
	case event.Failing:
		if e.Text == "" {
			e.Text = l.whyFailing()
		}
	case event.Recovered:
		l.err = ""
	default:
	}
	l.Handle(e)
}

// whyFailing is why the channel has no connection: as its last dial ended, or as its policy
// says if there was none.
func (l *channelLog) whyFailing() string {
	if l.err != "" {
		return l.err
	}
	for _, p := range l.channel.livePolicies() {
		if err := p.stateError(balancer.PickInfo{Ctx: context.Background()}); err != nil {
			return err.Error()
		}
	}
	return ""
}

// rest is called when a policy has been closed.
func (l *channelLog) rest() {
	if l == nil {
		return
	}
	l.queue.Flush()
	if len(l.channel.livePolicies()) == 0 {
		l.Rest()
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
