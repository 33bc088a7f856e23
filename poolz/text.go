package poolz

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/shared"
)

// seconds is a duration that JSON shows as a number of seconds.
type seconds time.Duration

// MarshalJSON writes seconds with six decimals.
func (s seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', 6, 64), nil
}

// String writes the duration with a unit and few digits.
func (s seconds) String() string {
	d := time.Duration(s)
	switch {
	case d < 0:
		return "−" + (-s).String()
	case d == 0:
		return "0 s"
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(1e3*d.Seconds(), 'f', 2, 64) + " ms"
	case d < time.Second:
		return strconv.FormatFloat(1e3*d.Seconds(), 'f', 0, 64) + " ms"
	case d < time.Minute:
		return strings.TrimSuffix(strconv.FormatFloat(d.Seconds(), 'f', 1, 64), ".0") + " s"
	case d < time.Hour:
		return pair(d, time.Minute, "min", time.Second, "s")
	case d < 48*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "min")
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	}
}

// pair writes d in two units; the smaller one is left out if it is zero.
func pair(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d %s", d/big, bigName)
	if rest := d % big / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}

// group writes a number with a thin space between thousands.
func group[N int | uint64 | uint32](n N) string {
	digits := strconv.FormatUint(uint64(n), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u2009" + digits[i:]
	}
	return digits
}

// plural writes a number and the thing counted, in the plural if need be.
func plural(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return group(n) + " " + thing + "s"
}

// place returns the function and line of a holder, without the path of its package.
func place(h shared.Holder) string {
	h.Func = h.Func[strings.LastIndexByte(h.Func, '/')+1:]
	return h.String()
}

// share returns part of whole in percent, at most 100, for the width of a bar.
func share(part int, whole uint32) string {
	if whole == 0 {
		return "0"
	}
	return strconv.FormatFloat(min(100, 100*float64(part)/float64(whole)), 'f', 1, 64)
}

// The classes of page.css that give words, dots and marks their colours.
const (
	good = "good"
	warn = "warn"
	bad  = "bad"
	calm = "calm"
)

// tone returns the class of an event.
func tone(k shared.EventKind) string {
	switch k {
	case shared.EventFailing, shared.EventOpenFailed, shared.EventDialFailed, shared.EventTestFailed, shared.EventLost, shared.EventEjected:
		return bad
	case shared.EventWaitedTooLong, shared.EventStarved, shared.EventLeaked, shared.EventStuck, shared.EventRetired:
		return warn
	case shared.EventOpened, shared.EventRecovered, shared.EventDialled, shared.EventTested, shared.EventGrew:
		return good
	default:
		return calm
	}
}

// codeTone returns the class of a status code. Those with which a server is at fault, or the
// way to it, are bad. The others may be what the program asked for.
func codeTone(c codes.Code) string {
	switch c {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return bad
	case codes.ResourceExhausted:
		return warn
	default:
		return calm
	}
}

// expiryTone returns the class of a certificate, by how soon it expires.
func expiryTone(e identity.Expiry) string {
	switch e {
	case identity.ExpiryNear:
		return warn
	case identity.ExpiryUrgent, identity.ExpiryPassed:
		return bad
	default:
		return calm
	}
}

// stateTone returns the class of a pool's state.
func stateTone(s shared.State) string {
	switch s {
	case shared.StateReady:
		return good
	case shared.StateFailing:
		return bad
	case shared.StateConnecting:
		return warn
	default:
		return calm
	}
}

// The size of a sparkline in the units of its SVG, and the number of probes that fill it.
// Fewer probes are drawn at its right.
const (
	sparkWidth  = 72.0
	sparkHeight = 18.0
	sparkProbes = 16
)

// point is a point of a sparkline.
type point struct{ X, Y float64 }

func (p point) String() string { return fmt.Sprintf("%.1f,%.1f", p.X, p.Y) }

// sparkAt returns the point of probe i: zero is at the bottom, the longest probe at the
// top.
func sparkAt(probes []seconds, i int) point {
	step := (sparkWidth - 6) / float64(max(sparkProbes, len(probes))-1)
	share := float64(probes[i]) / float64(max(longest(probes), 1))
	return point{
		X: sparkWidth - 3 - step*float64(len(probes)-1-i),
		Y: sparkHeight - 3 - (sparkHeight-6)*share,
	}
}

// spark returns the points of the line through the probes' times.
func spark(probes []seconds) string {
	points := make([]string, 0, len(probes))
	for i := range probes {
		points = append(points, sparkAt(probes, i).String())
	}
	return strings.Join(points, " ")
}

// sparkEnd returns the point where the line ends.
func sparkEnd(probes []seconds) point { return sparkAt(probes, len(probes)-1) }

// alreadyShown reports whether the text of an event, if there is one, is this text.
func alreadyShown(e *eventView, text string) bool { return e != nil && e.Text == text }

// words is a kind of event for a reader: "dial failed" for dial_failed.
func words(k shared.EventKind) string { return strings.ReplaceAll(string(k), "_", " ") }

// tookWord returns the word before the duration of an event.
func tookWord(k shared.EventKind) string {
	switch k {
	case shared.EventDialled, shared.EventOpened, shared.EventTested:
		return "in"
	default:
		return "after"
	}
}

// latest returns the time of the last probe.
func latest(probes []seconds) seconds { return probes[len(probes)-1] }

// longest returns the longest of the probes' times.
func longest(probes []seconds) seconds {
	var most seconds
	for _, p := range probes {
		most = max(most, p)
	}
	return most
}
