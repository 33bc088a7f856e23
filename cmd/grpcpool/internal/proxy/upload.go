package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// flag is an atomic.Bool that is written only when it changes, since all calls of a
// method share it.
type flag struct{ atomic.Bool }

func (f *flag) set(v bool) {
	if f.Load() != v {
		f.Store(v)
	}
}

// shape describes the last call of a method.
type shape struct {
	streamsUp   flag // its request did not arrive in one piece
	streamsDown flag // its answer did not arrive in one piece
}

// shapes holds the shape of every method. Methods in excess of the memo's bounds share
// one.
type shapes struct {
	memo[string, *shape]

	others shape
}

func (s *shapes) of(method string) *shape {
	if len(method) > maxMemoKey {
		return &s.others
	}
	found, kept := s.get(method, func(string) *shape { return new(shape) })
	if !kept {
		return &s.others
	}
	return found
}

// beginning is the part of a request received before the server's stream is open.
type beginning struct {
	mu    sync.Mutex // guards what follows; held for assignments only
	first *message   // nil until it is received
	whole bool       // the request has ended
	taken bool       // takeOver has taken first; upload sends the rest
}

// hand keeps the first message for the goroutine that opens the stream, and reports
// false if the stream has been opened already.
func (b *beginning) hand(m *message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.taken {
		b.first = m
	}
	return !b.taken
}

// end notes that the request has ended. It reports true if the stream has not been
// opened; then the caller must open it.
func (b *beginning) end() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.whole = true
	return !b.taken
}

// take is for takeOver. It reports whether takeOver must open the stream.
func (b *beginning) take() (first *message, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.whole || b.taken {
		return nil, false
	}
	b.taken = true
	return b.first, true
}

// upload reads what the client sends. It returns true if the request ended before
// takeOver: then it consists of the first message, or of none. Otherwise it has forwarded
// the rest to the server, and the server's stream has the status of the call.
func (c *call) upload() (whole bool, err error) {
	n := 0
	if c.begin.first != nil {
		n = 1 // read before the call began
	}
	var firstAt time.Time
	for ; ; n++ {
		m := new(message)
		switch err := c.client.RecvMsg(m); {
		case errors.Is(err, io.EOF):
			onePiece := n <= 1 && (firstAt.IsZero() || time.Since(firstAt) < patience)
			return c.endUpload(onePiece)
		case err != nil:
			c.begin.end()
			return false, err
		}
		if n == 0 {
			firstAt = time.Now()
			if c.begin.hand(m) {
				continue
			}
		}
		if err := c.sendNext(m); err != nil {
			return false, err
		}
	}
}

func (c *call) endUpload(onePiece bool) (whole bool, err error) {
	whole = c.begin.end()
	c.shape.streamsUp.set(!onePiece && !whole)
	if whole {
		return true, nil
	}
	<-c.ready
	if c.server == nil {
		return false, nil
	}
	return false, c.server.CloseSend()
}

// sendNext sends a message after the first, or the first if it came too late for hand.
func (c *call) sendNext(m *message) error {
	c.takeOver() // a no-op if it has been called
	<-c.ready
	if c.server == nil {
		m.free()
		return io.EOF
	}
	return send(c.server, m, c.encoding)
}
