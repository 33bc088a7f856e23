// Package event holds what pools and channels report about themselves: the kinds of
// events, the record of one, and the queue that delivers them in order. Packages
// scale and shared alias its types, so there is one vocabulary:
//
//	q := event.Queue{Deliver: func(e event.Event) { log.Print(e.Kind, " ", e.Text) }}
//	q.Add(event.Event{Time: time.Now(), Kind: event.Lost, Address: "10.0.0.1:443", Text: "EOF"}, run)
//	latest := q.Latest()
//
// run is the owner's way to start a goroutine that it waits for when it closes.
package event

import "time"

// Kind says what happened. Its values are snake_case words: they appear in JSON, and
// programs match them.
type Kind string

// What happens inside a channel, to its connections and to the calls that wait for
// one. Package scale reports these.
const (
	Dialled    Kind = "dialled"
	DialFailed Kind = "dial_failed"
	Grew       Kind = "grew"
	Shrank     Kind = "shrank"
	Replaced   Kind = "replaced"
	Ejected    Kind = "ejected"
	Lost       Kind = "lost"
	Starved    Kind = "starved"
)

// What happens to a pool and to its channels. Package shared reports these, and
// those above for the channels of the pool.
const (
	Opened         Kind = "opened"
	OpenFailed     Kind = "open_failed"
	Tested         Kind = "tested"
	TestFailed     Kind = "test_failed"
	Failing        Kind = "failing"
	Recovered      Kind = "recovered"
	Retired        Kind = "retired"
	ClosedIdle     Kind = "closed_idle"
	ClosedRetired  Kind = "closed_retired"
	ClosedShutdown Kind = "closed_at_shutdown"
	WaitedTooLong  Kind = "waited_too_long"
	Leaked         Kind = "leaked"
	Stuck          Kind = "stuck"
	Shutdown       Kind = "shut_down"
)

// Event is something that happened to a pool, a channel or a connection.
type Event struct {
	Time        time.Time     `json:"time"`
	Kind        Kind          `json:"kind"`
	Channel     uint64        `json:"channel,omitempty"`     // the pool's number for the channel, from 1 in the order of dials; 0: not about a pool's channel
	Address     string        `json:"address,omitempty"`     // of the server that the connection goes to; "": not about one
	Connection  uint64        `json:"connection,omitempty"`  // its ID within the channel, from 1; 0: not about one
	Took        time.Duration `json:"took,omitempty"`        // nanoseconds; which time it is depends on Kind
	Connections int           `json:"connections,omitempty"` // how many connections closed with the channel
	Count       int           `json:"count"`                 // how many events this one stands for, at least 1
	Text        string        `json:"text,omitempty"`        // why, in one line of printable text

	// Stack is where the leaked lease was borrowed: program counters for
	// runtime.CallersFrames, innermost call first. It is nil for other kinds.
	Stack []uintptr `json:"-"`
}

// Floods reports whether events of kind k can come by the thousand, so that a queue
// may join them.
func Floods(k Kind) bool {
	switch k {
	case Tested, TestFailed, OpenFailed, DialFailed, WaitedTooLong, Starved, Leaked, Stuck:
		return true
	default:
		return false
	}
}

// EndsConnection reports whether k is the end of one connection of a channel that
// stays open.
func EndsConnection(k Kind) bool {
	return k == Shrank || k == Replaced || k == Ejected || k == Lost
}
