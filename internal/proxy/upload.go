package proxy

import (
	"errors"
	"io"
	"sync"
	"time"
)

// patience is how long a message waits for what is likely to come with it, so that
// both go on in one piece: a request for its end, headers and the first answer for
// what follows. In a unary call these come together, and passing them on one by one
// would double what the call costs. Where they do not come together, the first call
// of a method loses this time, and the method's shape is remembered.
const patience = time.Millisecond

// shape is what the latest call of a method was like.
type shape struct {
	streamsUp   flag // its request did not come in one piece
	streamsDown flag // nor did its answer
}

// maxShapes bounds what is remembered. The methods beyond have one shape together.
const maxShapes = 4096

type shapes struct {
	mu       sync.RWMutex // guards what follows
	byMethod map[string]*shape
	others   shape
}

func (s *shapes) of(method string) *shape {
	s.mu.RLock()
	found := s.byMethod[method]
	s.mu.RUnlock()
	if found != nil {
		return found
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.byMethod[method]; found != nil {
		return found
	}
	if len(s.byMethod) >= maxShapes {
		return &s.others
	}
	if s.byMethod == nil {
		s.byMethod = make(map[string]*shape)
	}
	found = new(shape)
	s.byMethod[method] = found
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
