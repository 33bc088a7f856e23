package tap

import (
	"sync"
	"sync/atomic"
	"time"
)

// A tap can ask the peer's HTTP/2 whether it is there, whatever stands behind it: it
// sends an empty SETTINGS frame, which changes nothing and has to be acknowledged at
// once (RFC 9113, section 6.5.3). A PING would do as well, but servers count PINGs,
// and gRPC's hang up after a few that come without calls. The transport ignores
// acknowledgements of SETTINGS, so that nothing has to be kept from it.
//
// A frame may be sent between two frames of the transport, but not within a header
// block (section 6.10).

// Question asks the peer's HTTP/2 for a sign of life; see [State.Ask].
type Question struct {
	answered chan struct{}
	nth      uint64       // of this side's SETTINGS; guarded by asking.mu
	written  atomic.Int64 // nanoseconds from the link's start, plus one; 0: not yet
	link     *link        // nil if there is no connection
}

// Answered is closed when the peer has answered.
func (q *Question) Answered() <-chan struct{} { return q.answered }

// Written is when the question was sent; the zero Time if it could not be yet.
func (q *Question) Written() time.Time {
	if at := q.written.Load(); at > 0 {
		return q.link.start.Add(time.Duration(at - 1))
	}
	return time.Time{}
}

// Ask has the peer's HTTP/2 asked whether it is there, as soon as the transport's own
// frames allow it. Ask does not wait.
func (s *State) Ask() *Question {
	l := s.link.Load()
	q := &Question{answered: make(chan struct{}), link: l}
	if l != nil {
		l.asking.ask(q)
	}
	return q
}

// Opened is how many streams the transport has opened, that is, how many HEADERS
// frames it has sent or is about to send.
func (s *State) Opened() int64 {
	if l := s.link.Load(); l != nil {
		return l.ledger.everOpened.Load()
	}
	return 0
}

// Sent is how many bytes the transport has sent.
func (s *State) Sent() int64 {
	if l := s.link.Load(); l != nil {
		return l.sent.Load()
	}
	return 0
}

// settingsFrame is an empty SETTINGS.
var settingsFrame = []byte{0, 0, 0, typeSettings, 0, 0, 0, 0, 0}

// asking is how questions get between the transport's frames. Whoever writes has set
// writing, so that mu is not held meanwhile.
type asking struct {
	conn *conn // set before use

	mu      sync.Mutex // guards all below; taken before ledger.mu
	idle    *sync.Cond // nobody writes
	writing bool
	closed  bool
	wishes  []*Question // to be sent
	asked   []*Question // sent, and not answered
	acks    uint64      // of this side's SETTINGS
	writers sync.WaitGroup
}

func (a *asking) init(c *conn) {
	a.conn, a.idle = c, sync.NewCond(&a.mu)
}

// ask sends q, or leaves it to who writes now.
func (a *asking) ask(q *Question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.conn == nil {
		return
	}
	a.wishes = append(a.wishes, q)
	if a.writing || !a.conn.link.ledger.between() {
		return
	}
	a.writing = true
	a.writers.Go(func() { // it may take as long as the peer does not read
		a.write()
		a.end()
	})
}

// begin waits until nobody else writes, and notes what the transport is about to.
func (a *asking) begin(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.writing {
		a.idle.Wait()
	}
	a.writing = true
	a.conn.link.ledger.wrote(b) // before it is: the answer may be here before Write has returned
}

// end is called when the transport has written. It sends the questions that have come
// meanwhile.
func (a *asking) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.wishes) > 0 && a.conn.link.ledger.between() && !a.closed {
		a.mu.Unlock()
		a.write()
		a.mu.Lock()
	}
	a.endLocked()
}

func (a *asking) endLocked() {
	a.writing = false
	a.idle.Signal()
}

// write sends one SETTINGS for all the questions that there are.
func (a *asking) write() {
	l := a.conn.link
	a.mu.Lock()
	asked := a.wishes
	a.wishes = nil
	l.ledger.wrote(settingsFrame)
	for _, q := range asked {
		q.nth = l.ledger.settingsWritten()
	}
	a.asked = append(a.asked, asked...)
	a.mu.Unlock()
	n, err := a.conn.Conn.Write(settingsFrame)
	l.sent.Add(int64(n))
	if err != nil {
		l.ending.record("writing", err)
		return
	}
	now := int64(time.Since(l.start)) + 1
	for _, q := range asked {
		q.written.Store(now)
	}
}

// acknowledged is told by the reader that the peer has acknowledged one of this side's
// SETTINGS, the oldest that it has not.
func (a *asking) acknowledged() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acks++
	for len(a.asked) > 0 && a.asked[0].nth <= a.acks {
		close(a.asked[0].answered)
		a.asked = a.asked[1:]
	}
}

// close lets nothing more be asked. What is being written has ended once wait returns,
// which the connection must be closed for.
func (a *asking) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
}

func (a *asking) wait() { a.writers.Wait() }
