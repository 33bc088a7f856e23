// Package logline has the words of the library's log lines, and decides which lines there
// are: one at Warn for one fault, whatever the number of events, and one at Info when a
// time without a connection ends.
//
//	log := logline.New(logger, "grpcpool: ")
//	log.Handle(event.Event{Time: time.Now(), Kind: event.Failing, Text: "connection refused"})
//	// level=WARN msg="grpcpool: no connection" error="connection refused" hint="check ..."
//
// A pool and a channel of package scale feed their events to one each. If a channel belongs
// to a pool that logs, its own log is off (see Switch), as the pool is told its events.
package logline

import (
	"log/slog"

	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// The keys of all lines of the library. DESIGN.md lists them; there are no others but those
// of package identity, about certificates.
const (
	Pool       = "pool"        // the pool's name, if it has one
	Target     = "target"      // what the pool or the channel dials, as configured
	Channel    = "channel"     // the pool's number for the channel
	Address    = "address"     // of the server that a connection goes to
	Connection = "connection"  // its ID within the channel
	Took       = "took"        // how long a dial, a test or a wait took
	Age        = "age"         // how long a connection, a channel or a lease has lived
	Outage     = "outage"      // for how long there has been no connection, or was none
	Count      = "count"       // how many events the line stands for, if more than one
	Error      = "error"       // why; in a line about the end of a fault, the last error
	Hint       = "hint"        // what to do; in every line at Warn or above
	Suppressed = "suppressed"  // how many events like this one had no line since the last
	BorrowedBy = "borrowed_by" // the stack of the Get whose lease was not returned
)

// maxText is how much of an error is logged, in bytes.
const maxText = 1 << 10

// Text is err's text as a line shows it: in one line, what a peer may have sent in it
// escaped, and cut where it is too long.
func Text(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String(Error, clean(err.Error()))
}

func clean(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "..." // Escape shows half a character as bytes
	}
	return reason.OneLine(text)
}
