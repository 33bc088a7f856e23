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

// request is the beginning of what a client sends, as long as the server's stream
// is not open.
type request struct {
	wake chan struct{} // tells await that there is no more to wait for; holds one

	mu     sync.Mutex // guards what follows; held for assignments only
	first  *message   // nil until it has come
	whole  bool       // there will be no more
	opened bool       // await has taken the above; the rest is upload's
}

// hand gives the first message to await, if that still wants it.
func (r *request) hand(m *message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.opened {
		r.first = m
	}
	return !r.opened
}

// end tells await that the request is whole, if that still wants to know.
func (r *request) end() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened {
		return false
	}
	r.whole = true
	r.tell()
	return true
}

func (r *request) tell() {
	select {
	case r.wake <- struct{}{}:
	default: // told
	}
}

func (r *request) take() (first *message, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened = true
	return r.first, r.whole
}

// await waits for the request, if it is likely to come in one piece, and returns what
// has come of it.
func (c *call) await() (first *message, whole bool) {
	if !c.shape.streamsUp.Load() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-c.request.wake:
		case <-timer.C:
		case <-c.client.Context().Done():
		}
	}
	first, whole = c.request.take()
	return first, whole
}

// upload carries messages to the server until the client has no more, and then
// says so. The first goes by await, if that waits for it.
func (c *call) upload() error {
	n := 0
	if c.request.first != nil {
		n = 1 // read before the call began
	}
	var firstAt time.Time
	for ; ; n++ {
		m := new(message)
		switch err := c.client.RecvMsg(m); {
		case errors.Is(err, io.EOF):
			return c.endUpload(n <= 1 && (firstAt.IsZero() || time.Since(firstAt) < patience))
		case err != nil:
			c.request.tell()
			return err
		}
		if n == 0 {
			firstAt = time.Now()
			if c.request.hand(m) {
				continue
			}
		}
		if err := c.sendNext(m); errors.Is(err, io.EOF) {
			return nil // the server has ended the stream; its status comes by download
		} else if err != nil {
			return err
		}
	}
}

// endUpload is told whether the request came in one piece.
func (c *call) endUpload(onePiece bool) error {
	if c.request.end() {
		return nil
	}
	c.shape.streamsUp.set(!onePiece)
	<-c.ready
	if c.server == nil {
		return nil
	}
	return c.server.CloseSend()
}

// sendNext sends a message after the first ones, when the server's stream is open.
func (c *call) sendNext(m *message) error {
	c.request.tell() // it is not the whole
	<-c.ready
	if c.server == nil {
		m.free()
		return io.EOF
	}
	return send(c.server, m, c.encoding)
}
