package shared

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
)

// EventKind says what happened.
type EventKind string

// What happens to a pool and to its channels.
const (
	EventOpened         EventKind = "opened"             // a channel was dialled and tested, and is lent from here on; Took is how long that took
	EventOpenFailed     EventKind = "open failed"        // a channel could not be had; Took is how long that took
	EventTested         EventKind = "tested"             // the channel answered its test; Took is how long that took
	EventTestFailed     EventKind = "test failed"        // it did not
	EventFailing        EventKind = "failing"            // there is no connection: Get fails from here on
	EventRecovered      EventKind = "recovered"          // there is one again
	EventRetired        EventKind = "retired"            // another channel took the place of one that failed its test; Took is its age
	EventClosedIdle     EventKind = "closed idle"        // a channel was closed for want of leases; Took is its age
	EventClosedRetired  EventKind = "closed retired"     // a retired channel was closed: its last lease came back; Took is its age
	EventClosedShutdown EventKind = "closed at shutdown" // a channel was closed with the pool; Took is its age
	EventWaitedTooLong  EventKind = "waited too long"    // a caller's context ended before it had a connection; Took is how long it waited
	EventLeaked         EventKind = "leaked"             // leak detection reports a lease; Took is how long it has been out
	EventStuck          EventKind = "stuck"              // a call of the factory goes on though its context has ended; the pool goes on without it
	EventShutdown       EventKind = "shut down"          // the pool is closed; the last event. Text says what still runs, if anything
)

// What happens inside a channel, as package scale tells it. A channel whose
// factory is no grpcpool.Inspector counts as one connection: it is dialled when
// it is opened.
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

// Event is something that happened in a pool. Events are rare: none is about a
// call that goes well. What comes in floods is told together: Count is then more
// than 1, and the rest is of the last one.
type Event struct {
	Time        time.Time     `json:"time"`
	Kind        EventKind     `json:"kind"`
	Channel     uint64        `json:"channel,omitempty"` // which of the pool's, numbered in the order of their dials; 0 where the event is about none
	Address     string        `json:"address,omitempty"` // of the connection; "" where the event is about none
	Connection  uint64        `json:"connection,omitempty"`
	Took        time.Duration `json:"took,omitempty"`        // nanoseconds
	Connections int           `json:"connections,omitempty"` // that were closed with the channel
	Count       int           `json:"count"`                 // how many such events this one stands for, at least 1
	Text        string        `json:"text,omitempty"`        // why, in one line of printable text

	borrow *borrow // for EventLeaked
}

// floods reports whether events of this kind are told together.
func (k EventKind) floods() bool {
	switch k {
	case EventTested, EventTestFailed, EventOpenFailed, EventDialFailed, EventWaitedTooLong, EventStarved, EventLeaked, EventStuck:
		return true
	default:
		return false
	}
}

// ends reports whether k is the end of one connection of a channel that goes on.
func (k EventKind) ends() bool {
	return k == EventShrank || k == EventReplaced || k == EventEjected || k == EventLost
}

const (
	keptEvents       = 64   // for Stats
	maxPendingEvents = 1024 // not yet told
	maxEventText     = 512  // bytes
)

// events are a pool's: the latest, for Stats, and those on their way to hooks and
// log.
type events struct {
	mu      sync.Mutex // guards what follows; never held while somebody is told
	latest  []Event
	pending []Event
	telling bool          // a goroutine tells what is pending
	quiet   chan struct{} // closed when it has ended; nil if nobody waits for that
}

// add notes e. If it is to be told, it reports whether a goroutine must be started
// that tells it.
func (ev *events) add(e Event, tell bool) (start bool) {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	ev.latest = appendEvent(ev.latest, e, keptEvents)
	if !tell {
		return false
	}
	ev.pending = appendEvent(ev.pending, e, maxPendingEvents)
	start = !ev.telling
	ev.telling = true
	return start
}

// appendEvent appends e to all, or puts it in the place of one of its kind if
// only floods have come since. Beyond the limit it drops the oldest.
func appendEvent(all []Event, e Event, limit int) []Event {
	if e.Kind.floods() {
		for i := len(all) - 1; i >= 0 && all[i].Kind.floods(); i-- {
			if all[i].Kind == e.Kind && all[i].Address == e.Address && all[i].sameText(e) {
				e.Count += all[i].Count
				e.Connections += all[i].Connections
				all = append(all[:i], all[i+1:]...)
				break
			}
		}
	}
	if len(all) >= limit {
		all = append(all[:0], all[len(all)-limit+1:]...)
	}
	return append(all, e)
}

// sameText reports whether what e says may be told as one with what o says:
// leaks of different borrowers may not.
func (e Event) sameText(o Event) bool { return e.Kind != EventLeaked || e.Text == o.Text }

// take returns what is to be told. It ends the telling if that is nothing.
func (ev *events) take() []Event {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	batch := ev.pending
	ev.pending = nil
	ev.telling = len(batch) > 0
	if !ev.telling && ev.quiet != nil {
		close(ev.quiet)
		ev.quiet = nil
	}
	return batch
}

// busy reports whether somebody is being told something.
func (ev *events) busy() bool {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	return ev.telling
}

// wait waits until everything is told, or for the given time.
func (ev *events) wait(atMost time.Duration) {
	ev.mu.Lock()
	if !ev.telling {
		ev.mu.Unlock()
		return
	}
	if ev.quiet == nil {
		ev.quiet = make(chan struct{})
	}
	quiet := ev.quiet
	ev.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-quiet:
	case <-timer.C:
	}
}

// abandon drops what is pending.
func (ev *events) abandon() {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	ev.pending, ev.telling = nil, false
}

// kept is a copy of the latest events, oldest first.
func (ev *events) kept() []Event {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	return append([]Event(nil), ev.latest...)
}

// emit notes e and has it told. It must be called without a lock.
func (p *Pool) emit(e Event) {
	e.Time, e.Count = time.Now(), max(e.Count, 1)
	e.Text = oneLine(e.Text)
	p.pass(e)
}

func (p *Pool) pass(e Event) {
	if !p.events.add(e, p.listening(e.Kind)) {
		return
	}
	p.mu.Lock()
	gone := p.closing && p.live == 0
	if !gone {
		p.live++
	}
	p.mu.Unlock()
	if gone { // too late to tell anybody
		p.events.abandon()
		return
	}
	go p.tell()
}

// listening reports whether anybody wants to hear of such an event.
func (p *Pool) listening(k EventKind) bool {
	return len(p.hooks.event) > 0 || p.log.enabled(k)
}

// tell tells what is pending until nothing is.
func (p *Pool) tell() {
	defer p.finished()
	for batch := p.events.take(); len(batch) > 0; batch = p.events.take() {
		for _, e := range batch {
			for _, hook := range p.hooks.event {
				hook(e)
			}
			p.log.note(e)
		}
	}
}

// oneLine makes text safe to show: in one line, printable and of bounded length.
// The peer may have had a hand in it.
func oneLine(text string) string {
	if len(text) > maxEventText {
		text = strings.ToValidUTF8(text[:maxEventText], "") + "…"
	}
	text = strings.ToValidUTF8(text, "\ufffd")
	if strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var safe strings.Builder
	for _, r := range text {
		if unprintable(r) {
			fmt.Fprintf(&safe, "\\u%04x", r)
		} else {
			safe.WriteRune(r)
		}
	}
	return safe.String()
}

// unprintable is true of control characters, line ends and what changes the
// direction of the text around it.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }
