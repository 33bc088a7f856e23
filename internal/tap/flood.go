package tap

import (
	"errors"
	"fmt"
	"time"
)

// ErrFlood is what Cause, and the error that the transport gets, answer errors.Is
// for when the peer sent frames for no purpose but to keep this side busy.
var ErrFlood = errors.New("the peer floods the connection")

// A flood is frames that carry no data of a stream (PING, SETTINGS, HEADERS,
// CONTINUATION, RST_STREAM, WINDOW_UPDATE, empty DATA, unknown ones), many more
// than what the connection is used for explains. A client on a good connection
// meets few that it has not paid for:
//
//   - With what it sends. An RPC costs 28 bytes at least and is answered by two
//     HEADERS; each DATA frame that it sends may cost the server two
//     WINDOW_UPDATEs and a PING that measures the round trip. The shortest useful
//     DATA frame has 15 bytes. Its answers to PING and SETTINGS do not count.
//   - With what it receives: trailers, and its own PINGs acknowledged, come with
//     DATA.
//
// What is not paid for may come at floodRate for any length of time, and in
// bursts of floodBurst. At that, grpc-go does some milliseconds of work.
const (
	floodRate   = 1000 // frames a second, over at least a second
	floodBurst  = 10000
	floodWindow = time.Second

	bytesPerFrame = 4  // sent, that pay for a frame
	framesPerData = 10 // that a DATA frame with data pays for

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
func (t *tally) count(frameType, flags byte, length int) {
	if frameType == typeData && length > 0 {
		t.data++
		return
	}
	t.control++
	if flags&flagAck != 0 {
		return
	}
	switch frameType {
	case typePing:
		t.asking += pingAckLen
	case typeSettings:
		t.asking += settingsAckLen
	}
}

// unpaid is how many frames neither the data received nor the sent bytes explain.
func (t *tally) unpaid(sent int64) int64 {
	return int64(t.control) - framesPerData*int64(t.data) - max(sent-int64(t.asking), 0)/bytesPerFrame
}

// floodWatch looks for floods, window by window.
type floodWatch struct {
	since  time.Duration // the window's begin, after the link's
	sent   int64         // bytes sent before it
	enough int           // frames in it that are no burst, as was found when looking
}

// watchFlood is called after a read that ended at now, with the link's begin as
// zero. It returns why the connection must end, or nil.
func (c *conn) watchFlood(now time.Duration) error {
	took := now - c.flood.since
	if took < floodWindow && c.parser.tally.control < c.flood.enough+floodBurst {
		return nil
	}
	sent := c.link.sent.Load()
	unpaid := c.parser.tally.unpaid(sent - c.flood.sent)
	switch {
	case unpaid >= floodBurst, took >= floodWindow && float64(unpaid) > floodRate*took.Seconds():
		err := fmt.Errorf("tap: %w: %d frames without data in %v", ErrFlood, unpaid, took.Round(time.Millisecond))
		c.link.ending.judge(err)
		return err
	case took >= floodWindow:
		c.flood, c.parser.tally = floodWatch{since: now, sent: sent}, tally{}
	default:
		c.flood.enough = c.parser.tally.control - int(max(unpaid, 0)) // no fewer can make it a burst
	}
	return nil
}
