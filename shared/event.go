package shared

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/davidwartell/go-grpcpool/internal/event"
)

// EventKind says what happened: a snake_case word.
type EventKind = event.Kind

// What happens to a pool and to its channels. What Took is depends on the kind.
const (
	EventOpened         = event.Opened         // "opened": a channel was dialled and tested, and is lent from now on; Took is how long that took
	EventOpenFailed     = event.OpenFailed     // "open_failed": no channel could be opened; Took is how long the attempt took
	EventTested         = event.Tested         // "tested": the channel passed its test; Took is how long that took
	EventTestFailed     = event.TestFailed     // "test_failed": the channel failed its test; Took is how long that took
	EventFailing        = event.Failing        // "failing": there is no connection, and Get fails from now on
	EventRecovered      = event.Recovered      // "recovered": there is a connection again; Text has the last error
	EventRetired        = event.Retired        // "retired": another channel replaced one that failed its test; Took is its age
	EventClosedIdle     = event.ClosedIdle     // "closed_idle": a channel had no lease for the idle timeout and was closed; Took is its age
	EventClosedRetired  = event.ClosedRetired  // "closed_retired": a retired channel got its last lease back and was closed; Took is its age
	EventClosedShutdown = event.ClosedShutdown // "closed_at_shutdown": a channel was closed with the pool; Took is its age
	EventWaitedTooLong  = event.WaitedTooLong  // "waited_too_long": a caller's deadline passed before it had a connection; Took is how long it waited
	EventLeaked         = event.Leaked         // "leaked": leak detection found a lease; Took is how long it has been out, Stack where it was borrowed
	EventStuck          = event.Stuck          // "stuck": a call of the factory did not return when its context ended; the pool goes on without it
	EventShutdown       = event.Shutdown       // "shut_down": the pool is closed. This is the last event. Text says what still runs, if anything
)

// What happens inside a channel; package scale reports it. If the factory is not a
// grpcpool.InspectableFactory, a channel counts as one connection, which is dialled
// when the channel is opened.
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

// Event is something that happened in a pool. Events are rare: no call that goes well
// makes one. When many of the same kind come faster than they are delivered, they are
// joined: Count says how many, and the other fields are those of the last one. Its
// fields:
//
//	Time        time.Time
//	Kind        EventKind
//	Channel     uint64        // the pool's number for the channel, from 1 in the order of dials; 0 where the event is not about one
//	Address     string        // of the connection; "" where the event is not about one
//	Connection  uint64        // its ID within the channel; 0 where the event is not about one
//	Took        time.Duration // see the kinds
//	Connections int           // how many connections closed with the channel
//	Count       int           // how many events this one stands for, at least 1
//	Text        string        // why, in one line of printable text
//	Stack       []uintptr     // of EventLeaked: where Get was called, for runtime.CallersFrames
type Event = event.Event

const maxEventText = 512 // bytes

// emit reports e as happening now. The caller must hold no lock.
func (p *Pool) emit(e Event) {
	e.Time = time.Now()
	e.Text = oneLine(e.Text)
	p.publish(e)
}

// publish keeps e for Stats, and delivers it if a hook or the log wants it.
func (p *Pool) publish(e Event) {
	var run func(func()) bool
	if len(p.hooks.event) > 0 || p.log.Wants(e.Kind) {
		run = p.runDelivery
	}
	p.events.Add(e, run)
}

// runDelivery starts deliver on a goroutine that Close waits for. It returns false if
// the pool is closed.
func (p *Pool) runDelivery(deliver func()) bool {
	p.mu.Lock()
	over := p.closing && p.live == 0
	if !over {
		p.live++
	}
	p.mu.Unlock()
	if over {
		return false
	}
	go func() {
		defer p.finished()
		deliver()
	}()
	return true
}

// deliver is called by the queue, for one event at a time.
func (p *Pool) deliver(e Event) {
	for _, hook := range p.hooks.event {
		hook(e)
	}
	p.log.Handle(e)
}

// oneLine makes text safe to show: one line of printable characters, of bounded
// length. The text may come from the peer.
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

// unprintable reports whether r is a control character, a line end, or changes the
// direction of the text around it.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// plural is n and the noun, in the plural unless n is 1.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
