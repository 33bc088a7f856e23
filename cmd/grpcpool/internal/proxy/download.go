package proxy

import (
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
)

// download forwards headers, messages and trailers to the client. It returns the status
// of the call.
func (c *call) download() error {
	header, err := c.server.Header()
	if err != nil {
		return err
	}
	if header == nil { // the server sent trailers only, and so does the proxy
		m := new(message)
		defer m.free()
		return c.finish(c.server.RecvMsg(m))
	}
	encoded := c.note.encoding()
	if err := answerIn(c.client.Context(), encoded, c.encoding); err != nil {
		return err
	}
	dropHop(header)
	a := &answer{call: c, header: header, encoding: encoded}
	began := time.Now()
	if c.shape.streamsDown.Load() {
		_ = a.pass() // the next message reports an error
	} else {
		c.waits.begin(&a.wait, a)
		defer c.waits.end(&a.wait)
	}
	n := 0
	for ; ; n++ {
		m := new(message)
		if err := c.server.RecvMsg(m); err != nil {
			c.shape.streamsDown.set(n > 1 || time.Since(began) >= patience)
			if failed := a.pass(); failed != nil {
				return failed
			}
			return c.finish(err)
		}
		if err := a.add(m, n == 0); err != nil {
			return err
		}
	}
}

// finish forwards the trailers and returns the status of the server's stream.
func (c *call) finish(err error) error {
	trailer := c.server.Trailer()
	dropHop(trailer)
	c.client.SetTrailer(trailer)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// answer is what the server has sent. Its headers and first message may be held back for
// a moment.
type answer struct {
	call     *call
	encoding string
	wait     wait

	mu     sync.Mutex // guards what follows, and the order of what is sent to the client
	header metadata.MD
	first  *message // held back; nil if there is none
	passed bool     // nothing is held back any more
	err    error    // of sending it
}

// add forwards m, or holds it back if it is the first.
func (a *answer) add(m *message, first bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if first && !a.passed {
		a.first = m
		return nil
	}
	if a.passLocked(); a.err != nil {
		m.free()
		return a.err
	}
	return send(a.call.client, m, a.encoding)
}

// pass forwards what is held back.
func (a *answer) pass() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.passLocked()
	return a.err
}

// expired implements expirer.
func (a *answer) expired() { _ = a.pass() } // download's own call returns the error

func (a *answer) passLocked() {
	if a.passed {
		return
	}
	a.passed = true
	a.err = a.call.client.SendHeader(a.header)
	first := a.first
	a.first = nil
	switch {
	case first == nil:
	case a.err != nil:
		first.free()
	default:
		a.err = send(a.call.client, first, a.encoding)
	}
}
