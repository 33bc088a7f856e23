package scale

// A connection that is in doubt takes no new calls until it is proved to be alive: doubtBit
// makes it look full to a pick, which costs calls on other connections nothing. It stays in
// phaseReady and keeps the calls that it has. Calls that find no other connection wait in
// the queue, and get streams as soon as it is trusted again.

// doubt is why a connection takes no new calls.
type doubt int

const (
	doubtNone   doubt = iota
	doubtQuiet        // no call was begun on it since the last look; see liveness_quiet.go
	doubtSilent       // a probe has no answer
)

// doubtLocked keeps new calls off c.
func (c *connection) doubtLocked(why doubt) {
	c.doubt, c.awaited = why, false
	c.streams.Or(doubtBit)
}

// trustLocked ends the doubt: c takes new calls again.
func (c *connection) trustLocked(e *effects) {
	c.doubt, c.awaited = doubtNone, false
	if c.streams.And(^int64(doubtBit))&doubtBit != 0 {
		e.serve = true
	}
}

// takeForProbe takes a stream for a probe, whether c is in doubt or not, unless the server
// allows no more.
func (c *connection) takeForProbe() bool { return c.takeInDoubt(c.serverLimit.Load()) }

// takeInDoubt is take for a connection that may be in doubt: for probes, and for what does
// not wait until it is trusted.
func (c *connection) takeInDoubt(atMost int64) bool {
	for {
		n := c.streams.Load()
		if n&^doubtBit >= atMost {
			return false
		}
		if c.streams.CompareAndSwap(n, n+1) {
			return true
		}
	}
}
