package tap

import (
	"errors"
	"fmt"
	"time"
)

// ErrFlood is matched, with errors.Is, by Cause and by the transport's error when the peer
// sent far more frames than the calls on the connection explain.
var ErrFlood = errors.New("the peer floods the connection")

// A flood is a number of frames without data of a stream (PING, SETTINGS, HEADERS,
// CONTINUATION, RST_STREAM, WINDOW_UPDATE, empty DATA, unknown ones) that is far greater
// than the use of the connection explains. Such a frame is paid for in two ways:
//
//   - By what this side sends. A stream that it opens pays for framesPerStream. For each
//     DATA frame that it sends, the server may send two WINDOW_UPDATEs and a PING that
//     measures the round trip; the shortest useful DATA frame has 15 bytes. This side's
//     answers to PING and SETTINGS pay for nothing.
//   - By the DATA that it receives, which comes with trailers and acknowledged PINGs.
//
// Frames that are paid for may come at any time and all at once: a server may let thousands
// of calls wait for an hour and then end all of them. See ledger.
//
// Frames that are not paid for may come at floodRate for any length of time, and in bursts
// of floodBurst. A burst costs grpc-go some milliseconds of work.
const (
	floodRate   = 1000 // frames a second, over at least a second
	floodBurst  = 10000
	floodWindow = time.Second

	bytesPerFrame = 4  // bytes sent that pay for one frame
	framesPerData = 10 // frames that one received DATA frame with data pays for

	// largeContinuation is the length from which a CONTINUATION is not counted: long
	// headers need many, and the transport limits their length.
	largeContinuation = 4 << 10

	pingAckLen     = frameHeaderLen + 8
	settingsAckLen = frameHeaderLen
)

// tally counts the frames in a window of time. It is used by the goroutine that reads.
type tally struct {
	data    int // DATA frames with data
	control int // all others
	acks    int // bytes of the acknowledgements that those ask for
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
		t.acks += pingAckLen
	case f.kind == typeSettings:
		t.acks += settingsAckLen
	}
}

// unpaid returns how many frames are not paid for. It is negative if fewer frames came than
// are paid for.
func (t *tally) unpaid(sent, streams int64) int64 {
	paid := framesPerData*int64(t.data) + framesPerStream*streams + max(sent-int64(t.acks), 0)/bytesPerFrame
	return int64(t.control) - paid
}

// floodWatch looks for floods, window by window.
type floodWatch struct {
	since  time.Duration // when the window began, from the link's start
	credit int64         // frames that were paid for before the window and may still come
	enough int           // frames in the window that are known not to be a burst
}

// watchFlood is called after a read. now is the time from the link's start. It returns why
// the connection must be ended, or nil.
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
		c.link.ending.diagnose(err)
		return err
	case took >= floodWindow:
		spent := unpaid
		if unpaid > 0 { // what is allowed in any case uses no credit
			spent = max(unpaid-allowed, 0)
		}
		credit := min(c.flood.credit-spent, c.link.ledger.lapse())
		c.flood, *counted = floodWatch{since: now, credit: credit}, tally{}
	default:
		c.flood.enough = counted.control - int(max(beyond, 0)) // fewer cannot be a burst
	}
	return nil
}
