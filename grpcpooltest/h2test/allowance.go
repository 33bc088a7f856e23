package h2test

import (
	"math"
	"slices"
)

// none is the limit before there is one. SETTINGS can carry it, and a server
// that sends it and one that names no limit are the same to a client.
const none uint32 = math.MaxUint32

// limitValue turns the face's limit, negative for none, into that of SETTINGS.
func limitValue(n int) uint32 {
	if n < 0 || uint64(n) > uint64(none) {
		return none
	}
	return uint32(n)
}

// allowance knows how many streams a client may have open, given that SETTINGS
// and streams cross on the wire. A client has taken note of every SETTINGS up to
// the last one that it acknowledged, and maybe of later ones: so it may use the
// highest of these limits. The zero allowance is not ready; use newAllowance.
type allowance struct {
	acked uint32
	sent  []uint32 // sent and not acknowledged, oldest first
}

// newAllowance allows everything, as HTTP/2 does before the first SETTINGS.
func newAllowance() allowance { return allowance{acked: none} }

// send notes that SETTINGS with limit n is being sent.
func (a *allowance) send(n uint32) { a.sent = append(a.sent, n) }

// ack notes an acknowledgement, and reports whether there was anything to
// acknowledge.
func (a *allowance) ack() bool {
	if len(a.sent) == 0 {
		return false
	}
	a.acked = a.sent[0]
	a.sent = slices.Delete(a.sent, 0, 1)
	return true
}

// now is the highest number of open streams that is no violation.
func (a *allowance) now() uint32 {
	n := a.acked
	for _, sent := range a.sent {
		n = max(n, sent)
	}
	return n
}
