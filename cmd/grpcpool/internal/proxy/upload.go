package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// flag is an atomic.Bool that is written only when it changes: all calls of a
// method share it.
type flag struct{ atomic.Bool }

func (f *flag) set(v bool) {
	if f.Load() != v {
		f.Store(v)
	}
}

// shape is what the latest call of a method was like.
type shape struct {
	streamsUp   flag // its request did not come in one piece
	streamsDown flag // nor did its answer
}

// shapes are those of all methods. The methods beyond the bounds have one together.
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

// beginning is what has come of a request before the server's stream is open.
type beginning struct {
	mu    sync.Mutex // guards what follows; held for assignments only
	first *message   // nil until it has come
	whole bool       // there will be no more
	taken bool       // the above belongs to takeOver; what follows is sent by upload
}

// hand keeps the first message for whoever opens the stream, if nobody has.
func (b *beginning) hand(m *message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.taken {
		b.first = m
	}
	return !b.taken
}

// end notes that there will be no more, and reports whether nobody has opened the
// stream yet. Nobody will, but the caller.
func (b *beginning) end() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.whole = true
	return !b.taken
}

// take is for takeOver. It reports whether there is anything to take over.
func (b *beginning) take() (first *message, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.whole || b.taken {
		return nil, false
	}
	b.taken = true
	return b.first, true
}

// upload reads what the client sends. It returns true if all of it came before
// anybody took over: then the first message, or none, is all there is. Otherwise it
// has carried the rest to the server, whose stream says how the call ends.
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

// sendNext sends a message after the first, or the first if that was not waited for.
func (c *call) sendNext(m *message) error {
	c.takeOver() // unless it has been
	<-c.ready
	if c.server == nil {
		m.free()
		return io.EOF
	}
	return send(c.server, m, c.encoding)
}
