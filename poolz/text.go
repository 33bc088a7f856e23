package poolz

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/shared"
)

// seconds is a duration that JSON shows as a number of seconds.
type seconds time.Duration

// MarshalJSON writes seconds with six decimals.
func (s seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', 6, 64), nil
}

// String has as many digits as a reader wants.
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

// pair writes d in two units, the smaller only if there is any.
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

// plural writes a number of things.
func plural(n uint64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return group(n) + " " + thing + "s"
}

// place is where a holder is, without the path of its package.
func place(h shared.Holder) string {
	h.Func = h.Func[strings.LastIndexByte(h.Func, '/')+1:]
	return h.String()
}

// share is part of whole as a percentage for a bar, at most 100.
func share(part int, whole uint32) string {
	if whole == 0 {
		return "0"
	}
	return strconv.FormatFloat(min(100, 100*float64(part)/float64(whole)), 'f', 1, 64)
}

// The colours that words, dots and marks have; page.css knows them.
const (
	good = "good"
	warn = "warn"
	bad  = "bad"
	calm = "calm"
)

// tone is the colour of an event.
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

// expiryTone is the colour of how close a certificate is to its end.
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

// stateTone is the colour of a pool's state.
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

// The box that a sparkline is drawn in, in the SVG's own units, and how many probes
// fill it: fewer are drawn at its right.
const (
	sparkWidth  = 72.0
	sparkHeight = 18.0
	sparkProbes = 16
)

// point is a place in the box.
type point struct{ X, Y float64 }

func (p point) String() string { return fmt.Sprintf("%.1f,%.1f", p.X, p.Y) }

// sparkAt is where the probe of that number is drawn: zero at the bottom, the
// longest at the top.
func sparkAt(probes []seconds, i int) point {
	step := (sparkWidth - 6) / float64(max(sparkProbes, len(probes))-1)
	share := float64(probes[i]) / float64(max(longest(probes), 1))
	return point{
		X: sparkWidth - 3 - step*float64(len(probes)-1-i),
		Y: sparkHeight - 3 - (sparkHeight-6)*share,
	}
}

// spark is the points of a line through the probes' times.
func spark(probes []seconds) string {
	points := make([]string, 0, len(probes))
	for i := range probes {
		points = append(points, sparkAt(probes, i).String())
	}
	return strings.Join(points, " ")
}

// sparkEnd is where the line ends.
func sparkEnd(probes []seconds) point { return sparkAt(probes, len(probes)-1) }

// told reports whether an event, if there is one, says that already.
func told(e *eventView, text string) bool { return e != nil && e.Text == text }

// tookWord says what the time of an event is.
func tookWord(k shared.EventKind) string {
	switch k {
	case shared.EventDialled, shared.EventOpened, shared.EventTested:
		return "in"
	default:
		return "after"
	}
}

// latest is the last probe's time.
func latest(probes []seconds) seconds { return probes[len(probes)-1] }

// longest is the longest of the probes' times.
func longest(probes []seconds) seconds {
	var most seconds
	for _, p := range probes {
		most = max(most, p)
	}
	return most
}
