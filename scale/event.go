package scale

import (
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/internal/event"
)

// EventKind says what happened: a snake_case word.
type EventKind = event.Kind

// The kinds of events of a channel. What Took is depends on the kind.
const (
	EventDialled    = event.Dialled    // "dialled": a connection is READY; Took is the time since its dial began
	EventDialFailed = event.DialFailed // "dial_failed": a dial failed; Took is the time since it began
	EventGrew       = event.Grew       // "grew": further connections are being dialled for calls that wait
	EventShrank     = event.Shrank     // "shrank": a connection was closed because it was not needed; Took is its age
	EventReplaced   = event.Replaced   // "replaced": a connection was replaced by its successor; Took is its age
	EventEjected    = event.Ejected    // "ejected": a connection failed its probe and was closed; Took is its age
	EventLost       = event.Lost       // "lost": the server or the network ended a connection; Took is its age
	EventStarved    = event.Starved    // "starved": a call ended before it got a stream; Took is how long it waited
)

// Event is something that happened to a connection or to a subchannel. Events are
// rare: no call that goes well makes one. The fields of a channel's events:
//
//	Time       time.Time
//	Kind       EventKind
//	Address    string        // of the subchannel
//	Connection uint64        // its ID, as in a snapshot; 0 where the event is not about one
//	Took       time.Duration // see the kinds
//	Count      int           // 1
//	Text       string        // why, in one line; the peer's words are quoted in it
//
// The others (Channel, Connections, Stack) are for the events of a pool; see package
// shared.
type Event = event.Event

// WithEvents makes the channel call f for each of its events: in order, one at a
// time, on a goroutine of the channel that holds no lock. A slow f delays the events
// after it, and the closing of the channel; when it is 1024 events behind, the oldest
// are dropped. f must not close the channel. The option may be given several times.
// f must not be nil.
func WithEvents(f func(Event)) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if f == nil {
			return errors.New("scale: WithEvents(nil): want a function")
		}
		o.onEvent = append(o.onEvent, f)
		return nil
	})
}

// event reports that something happened to s. It may be called with s.mu held.
func (s *subchannel) event(kind EventKind, c *connection, took time.Duration, text string) {
	e := Event{Time: time.Now(), Kind: kind, Address: s.addr(), Took: took, Text: text}
	if c != nil {
		e.Connection = c.id
	}
	s.policy.channel.report(e, s.policy.tasks.run)
	s.policy.channel.log.add(e, s.policy.tasks.run)
}

// report keeps e, and has run deliver it to the channel's hooks, if it has any.
func (ch *channel) report(e Event, run func(deliver func()) bool) {
	if len(ch.hooks) == 0 {
		run = nil
	}
	ch.events.Add(e, run)
}

// callHooks delivers one event.
func (ch *channel) callHooks(e Event) {
	for _, hook := range ch.hooks {
		hook(e)
	}
}
