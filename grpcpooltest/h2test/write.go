package h2test

import (
	"bufio"
	"bytes"
	"errors"
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// linger is how long a client has to close after the server has closed its side.
// Closing at once would reset the connection under answers still on their way.
const linger = time.Second

// errFinished says that all is written that will ever be.
var errFinished = errors.New("h2test: finished")

// statusName is the pseudo-header of an answer (RFC 9113, section 8.3.2).
const statusName = ":status"

const contentType = "content-type"

// The parts of an answer: an empty message and the status OK.
var (
	answerHeaders  = encode(hpack.HeaderField{Name: statusName, Value: "200"}, hpack.HeaderField{Name: contentType, Value: "application/grpc"})
	answerMessage  = []byte{0, 0, 0, 0, 0}
	answerTrailers = encode(hpack.HeaderField{Name: "grpc-status", Value: "0"})
)

// encode makes a header block that can be sent any number of times: a field
// that is marked sensitive stays out of the dynamic table.
func encode(fields ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		f.Sensitive = f.Name[0] != ':'
		_ = enc.WriteField(f) // a bytes.Buffer takes all
	}
	return b.Bytes()
}

// outbox is the queue of what is to be written.
type outbox struct {
	wake chan struct{} // has room for one: something was put

	mu    sync.Mutex // guards queue
	queue []func(*http2.Framer) error
}

func newOutbox() outbox { return outbox{wake: make(chan struct{}, 1)} }

// put queues a write. It runs on the writing goroutine, in order, without locks.
func (o *outbox) put(write func(*http2.Framer) error) {
	o.mu.Lock()
	o.queue = append(o.queue, write)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (o *outbox) take() []func(*http2.Framer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	queue := o.queue
	o.queue = nil
	return queue
}

// write writes what is put into the outbox until the connection is over.
func (c *conn) write(nc net.Conn, w *bufio.Writer, fr *http2.Framer) {
	defer c.cut()
	for {
		select {
		case <-c.outbox.wake:
		case <-c.done:
			return
		}
		err := writeAll(fr, c.outbox.take())
		if flushErr := w.Flush(); err == nil {
			err = flushErr
		}
		if err == nil {
			continue
		}
		if half, ok := nc.(interface{ CloseWrite() error }); ok && errors.Is(err, errFinished) && half.CloseWrite() == nil {
			c.sleep(linger)
		}
		return
	}
}

func writeAll(fr *http2.Framer, writes []func(*http2.Framer) error) error {
	for _, write := range writes {
		if err := write(fr); err != nil {
			return err
		}
	}
	return nil
}

// finished is errFinished when the connection has gone away and has no streams
// left, nil otherwise.
func (c *conn) finished() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away && len(c.open) == 0 {
		return errFinished
	}
	return nil
}

// sendLimit sends SETTINGS, which name no limit if there is none to take back.
// The limit counts as sent just before it is.
func (c *conn) sendLimit(n uint32) {
	c.outbox.put(func(fr *http2.Framer) error {
		c.mu.Lock()
		unlimited := len(c.allowed.sent) == 0 && c.allowed.acked == none
		c.allowed.send(n)
		c.mu.Unlock()
		var settings []http2.Setting
		if n != none || !unlimited {
			settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
		}
		if c.fault == ZeroWindow {
			settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		}
		return fr.WriteSettings(settings...)
	})
}

// sendGracefulGoAway tells the client to go, and that its streams are welcome
// until it has done so (RFC 9113, section 6.8).
func (c *conn) sendGracefulGoAway() {
	c.outbox.put(func(fr *http2.Framer) error {
		return fr.WriteGoAway(math.MaxInt32, http2.ErrCodeNo, []byte("graceful"))
	})
}

// sendGoAway tells the client what the last stream was.
func (c *conn) sendGoAway() {
	c.outbox.put(func(fr *http2.Framer) error {
		c.mu.Lock()
		c.away = true
		last := c.last
		c.mu.Unlock()
		if err := fr.WriteGoAway(last, http2.ErrCodeNo, nil); err != nil {
			return err
		}
		return c.finished()
	})
}

// sendAnswer ends a call, unless the client has done so.
func (c *conn) sendAnswer(id uint32) {
	c.outbox.put(func(fr *http2.Framer) error {
		if !c.end(id) {
			return nil
		}
		err := errors.Join(
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: answerHeaders, EndHeaders: true}),
			fr.WriteData(id, false, answerMessage),
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: answerTrailers, EndHeaders: true, EndStream: true}),
		)
		if err != nil {
			return err
		}
		return c.finished()
	})
}

// end closes a stream that is about to be answered, and reports whether to
// answer it: not if it is gone, and not yet if the window is too small.
func (c *conn) end(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.open[id]; !ok {
		return false
	}
	if c.window < int64(len(answerMessage)) {
		c.starved = append(c.starved, id)
		return false
	}
	c.window -= int64(len(answerMessage))
	delete(c.open, id)
	return true
}
