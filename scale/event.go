package scale

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// EventKind says what happened.
type EventKind string

// What is told by events.
const (
	EventDialled    EventKind = "dialled"     // a connection is READY; Took is the time from the dial
	EventDialFailed EventKind = "dial failed" // Took is the time from the dial
	EventGrew       EventKind = "grew"        // further connections are dialled for calls that wait
	EventShrank     EventKind = "shrank"      // a connection was closed that was not needed; Took is its age
	EventReplaced   EventKind = "replaced"    // a connection made way for its successor; Took is its age
	EventEjected    EventKind = "ejected"     // a connection failed its probe; Took is its age
	EventLost       EventKind = "lost"        // the server or the network ended a connection; Took is its age
	EventStarved    EventKind = "starved"     // a call ended before it had a stream; Took is how long it waited
)

// Event is something that happened to a connection or a subchannel. They are rare:
// none is about a call that goes well.
type Event struct {
	Time       time.Time     `json:"time"`
	Kind       EventKind     `json:"kind"`
	Address    string        `json:"address"`
	Connection uint64        `json:"connection,omitempty"` // its ID; 0 where the event is not about one
	Took       time.Duration `json:"took,omitempty"`
	Text       string        `json:"text,omitempty"` // why, in one line; text of the peer is quoted in it
}

// WithEvents has f called for every event of the channel: in order, one at a time, on
// a goroutine of the channel that holds no lock. A slow f delays the events after
// it, and the closing of the channel, which f must not close itself; when it falls
// far behind, the oldest events are dropped. The option may be given several
// times. A nil f is an error of [NewClient].
func WithEvents(f func(Event)) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if f == nil {
			return errors.New("scale: WithEvents(nil): leave the option out")
		}
		o.onEvent = append(o.onEvent, f)
		return nil
	})
}

const (
	maxPendingEvents = 1024 // not yet told
	keptEvents       = 64   // for snapshots
)

// events are a channel's: the latest, for snapshots, and those on their way to
// the hooks.
type events struct {
	hooks []func(Event)

	mu      sync.Mutex // guards all below; never held while a hook runs
	latest  []Event    // a ring once it is full
	next    int        // where the ring goes on
	pending []Event
	telling bool // somebody tells what is pending
}

// add notes e, and reports whether tell must be called, by somebody who holds no
// lock.
func (ev *events) add(e Event) (tell bool) {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	if len(ev.latest) < keptEvents {
		ev.latest = append(ev.latest, e)
	} else {
		ev.latest[ev.next] = e
		ev.next = (ev.next + 1) % keptEvents
	}
	if len(ev.hooks) == 0 {
		return false
	}
	if len(ev.pending) == maxPendingEvents {
		ev.pending = ev.pending[1:]
	}
	ev.pending = append(ev.pending, e)
	tell = !ev.telling
	ev.telling = true
	return tell
}

// tell calls the hooks until nothing is pending.
func (ev *events) tell() {
	for {
		ev.mu.Lock()
		batch := ev.pending
		ev.pending = nil
		ev.telling = len(batch) > 0
		ev.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, e := range batch {
			for _, hook := range ev.hooks {
				hook(e)
			}
		}
	}
}

// abandon is called when telling could not begin: the next add asks for it again.
func (ev *events) abandon() {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	ev.telling = false
}

// tellRest tells what is left when a policy closes.
func (ev *events) tellRest() {
	ev.mu.Lock()
	mine := !ev.telling && len(ev.pending) > 0
	ev.telling = ev.telling || mine
	ev.mu.Unlock()
	if mine {
		ev.tell()
	}
}

// kept are the latest events, oldest first.
func (ev *events) kept() []Event {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	return append(append([]Event(nil), ev.latest[ev.next:]...), ev.latest[:ev.next]...)
}

// event notes that something happened to s. It may be called with s.mu held.
func (s *subchannel) event(kind EventKind, c *connection, took time.Duration, text string) {
	e := Event{Time: time.Now(), Kind: kind, Address: s.addr(), Took: took, Text: text}
	if c != nil {
		e.Connection = c.id
	}
	p := s.policy
	if p.channel.events.add(e) && !p.tasks.run(p.channel.events.tell) {
		p.channel.events.abandon()
	}
}
