package tap

import (
	"sync"
	"sync/atomic"
	"time"
)

// A tap can ask the peer's HTTP/2 whether it still answers, whatever is behind it: it sends
// an empty SETTINGS frame, which changes nothing and has to be acknowledged at once (RFC
// 9113, section 6.5.3). A PING would do as well, but servers count PINGs, and those of gRPC
// close a connection after a few PINGs without calls. The transport ignores
// acknowledgements of SETTINGS, so nothing has to be hidden from it.
//
// Such a frame may be sent between two frames of the transport, but not within a header
// block (section 6.10).

// Question is one question to the peer's HTTP/2 whether it still answers; see [State.Ask].
type Question struct {
	answered chan struct{}
	nth      uint64       // its number among this side's SETTINGS; guarded by questions.mu
	written  atomic.Int64 // nanoseconds from the link's start, plus one; 0: not yet
	link     *link        // nil if there is no connection
}

// Answered returns a channel that is closed when the peer has answered.
func (q *Question) Answered() <-chan struct{} { return q.answered }

// Written returns when the question was sent, or the zero Time if it was not sent yet.
func (q *Question) Written() time.Time {
	if at := q.written.Load(); at > 0 {
		return q.link.start.Add(time.Duration(at - 1))
	}
	return time.Time{}
}

// Ask asks the peer's HTTP/2 whether it still answers, as soon as the transport's own
// frames allow it. Ask does not wait for the answer, nor for the question to be sent.
func (s *State) Ask() *Question {
	l := s.link.Load()
	q := &Question{answered: make(chan struct{}), link: l}
	if l != nil {
		l.questions.add(q)
	}
	return q
}

// Opened returns how many streams the transport has opened, that is, how many HEADERS
// frames it has sent or is about to send.
func (s *State) Opened() int64 {
	if l := s.link.Load(); l != nil {
		return l.ledger.everOpened.Load()
	}
	return 0
}

// Sent returns how many bytes the transport has sent.
func (s *State) Sent() int64 {
	if l := s.link.Load(); l != nil {
		return l.sent.Load()
	}
	return 0
}

// settingsFrame is an empty SETTINGS.
var settingsFrame = []byte{0, 0, 0, typeSettings, 0, 0, 0, 0, 0}

// questions sends questions between the transport's frames. writing is set while
// somebody writes, so that mu need not be held over a write.
type questions struct {
	conn *conn // set before use

	mu      sync.Mutex // guards all below; taken before ledger.mu
	idle    *sync.Cond // signalled when writing becomes false
	writing bool
	closed  bool
	pending []*Question // not sent yet
	sent    []*Question // sent, and not answered yet
	acks    uint64      // received, for this side's SETTINGS
	writers sync.WaitGroup
}

func (a *questions) init(c *conn) {
	a.conn, a.idle = c, sync.NewCond(&a.mu)
}

// add sends q, or leaves it to the write that is going on.
func (a *questions) add(q *Question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.conn == nil {
		return
	}
	a.pending = append(a.pending, q)
	if a.writing || !a.conn.link.ledger.atBoundary() {
		return
	}
	a.writers.Go(a.writePending) // the write may block until the peer reads
}

// writePending sends what is pending, unless the transport writes just now and does so when
// it has written. The transport does not wait for this goroutine to begin, which takes long
// in a process that is short of CPU.
func (a *questions) writePending() {
	a.mu.Lock()
	begun := !a.writing
	a.writing = true
	a.mu.Unlock()
	if begun {
		a.end()
	}
}

// begin waits until no question is being written, and notes what the transport is about to
// write.
func (a *questions) begin(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.writing {
		a.idle.Wait()
	}
	a.writing = true
	a.conn.link.ledger.wrote(b) // beforehand: the answer may arrive before Write returns
}

// end is called when the transport has written. It sends the questions that were added
// meanwhile.
func (a *questions) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.pending) > 0 && a.conn.link.ledger.atBoundary() && !a.closed {
		a.mu.Unlock()
		a.write()
		a.mu.Lock()
	}
	a.endLocked()
}

func (a *questions) endLocked() {
	a.writing = false
	a.idle.Signal()
}

// write sends one SETTINGS for all pending questions.
func (a *questions) write() {
	l := a.conn.link
	a.mu.Lock()
	asked := a.pending
	a.pending = nil
	l.ledger.wrote(settingsFrame)
	for _, q := range asked {
		q.nth = l.ledger.settingsWritten()
	}
	a.sent = append(a.sent, asked...)
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

// acknowledged notes that the peer has acknowledged the oldest of this side's SETTINGS that
// it had not acknowledged yet. The reader calls it.
func (a *questions) acknowledged() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acks++
	for len(a.sent) > 0 && a.sent[0].nth <= a.acks {
		close(a.sent[0].answered)
		a.sent = a.sent[1:]
	}
}

// close makes add drop questions. Close the connection after it, so that a question that
// is being written ends; wait returns when it has.
func (a *questions) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
}

func (a *questions) wait() { a.writers.Wait() }
