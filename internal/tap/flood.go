package tap

import (
	"errors"
	"fmt"
	"time"
)

// ErrFlood is what Cause, and the error that the transport gets, match with errors.Is
// when the peer sent frames for no purpose but to keep this side busy.
var ErrFlood = errors.New("the peer floods the connection")

// A flood is frames that carry no data of a stream (PING, SETTINGS, HEADERS,
// CONTINUATION, RST_STREAM, WINDOW_UPDATE, empty DATA, unknown ones), many more
// than what the connection is used for explains. A client on a good connection
// meets few that it has not paid for:
//
//   - With what it sends. A stream pays for framesPerStream. Each DATA frame that it
//     sends may cost the server two WINDOW_UPDATEs and a PING that measures the round
//     trip; the shortest useful one has 15 bytes. Its answers to PING and SETTINGS do
//     not count.
//   - With what it receives: trailers, and its own PINGs acknowledged, come with
//     DATA.
//
// What it has paid for may come at any time, and all at once: a server may let
// thousands of calls wait for an hour and end them in one go. See ledger.
//
// What is not paid for may come at floodRate for any length of time, and in
// bursts of floodBurst. At that, grpc-go does some milliseconds of work.
const (
	floodRate   = 1000 // frames a second, over at least a second
	floodBurst  = 10000
	floodWindow = time.Second

	bytesPerFrame = 4  // sent, that pay for a frame
	framesPerData = 10 // that a DATA frame with data pays for

	// largeContinuation is the length of a CONTINUATION that is not counted: long
	// headers take as many as they need, and the transport bounds their length.
	largeContinuation = 4 << 10

	pingAckLen     = frameHeaderLen + 8
	settingsAckLen = frameHeaderLen
)

// tally counts the frames of a window of time. It is used by the goroutine that
// reads.
type tally struct {
	data    int // DATA frames that carry data
	control int // all others
	asking  int // of these, the bytes with which they must be answered
}

// count adds a frame.
func (t *tally) count(f frame) {
	switch {
	case f.kind == typeData && f.length > 0:
		t.data++
		return
	case f.kind == typeContinuation && f.length >= largeContinuation:
		return
	}
	t.control++
	switch {
	case f.flags&flagAck != 0:
	case f.kind == typePing:
		t.asking += pingAckLen
	case f.kind == typeSettings:
		t.asking += settingsAckLen
	}
}

// unpaid is how many frames neither the data received nor what was sent explain. It
// is negative if more was paid for than came.
func (t *tally) unpaid(sent, streams int64) int64 {
	paid := framesPerData*int64(t.data) + framesPerStream*streams + max(sent-int64(t.asking), 0)/bytesPerFrame
	return int64(t.control) - paid
}

// floodWatch looks for floods, window by window.
type floodWatch struct {
	since  time.Duration // the window's begin, after the link's
	credit int64         // frames that were paid for before it, and may still come
	enough int           // frames in it that are no burst, as was found when looking
}

// watchFlood is called after a read that ended at now, with the link's begin as
// zero. It returns why the connection must end, or nil.
func (c *conn) watchFlood(now time.Duration) error {
	took, counted := now-c.flood.since, &c.link.tally
	if took < floodWindow && counted.control < c.flood.enough+floodBurst {
		return nil
	}
	unpaid := counted.unpaid(c.link.ledger.latest())
	allowed := int64(floodBurst - 1)
	if took >= floodWindow {
		allowed = int64(floodRate * took.Seconds())
	}
	beyond := unpaid - c.flood.credit
	switch {
	case beyond > allowed:
		err := fmt.Errorf("tap: %w: %d frames without data in %v", ErrFlood, beyond, took.Round(time.Millisecond))
		c.link.ending.judge(err)
		return err
	case took >= floodWindow:
		spent := unpaid
		if unpaid > 0 { // what is allowed anyway costs no credit
			spent = max(unpaid-allowed, 0)
		}
		credit := min(c.flood.credit-spent, c.link.ledger.lapse())
		c.flood, *counted = floodWatch{since: now, credit: credit}, tally{}
	default:
		c.flood.enough = counted.control - int(max(beyond, 0)) // no fewer can make it a burst
	}
	return nil
}
