package h2test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// floodBatch is how many frames of a flood are written between those that
	// the connection has to write otherwise.
	floodBatch = 512

	// nobodys is a stream that no client opens: they would need a billion calls
	// to come to it.
	nobodys = 1<<31 - 1

	maxFrame = 16384 // RFC 9113, section 4.2

	hugeHeaderLen = 256 << 10
)

var (
	promise   = encode(hpack.HeaderField{Name: ":method", Value: "GET"}, hpack.HeaderField{Name: ":path", Value: "/pushed"})
	oneHeader = encode(hpack.HeaderField{Name: "x-flood", Value: strings.Repeat("x", 1000)})
	hugeBlock = encodeHuge()

	badRequest = encode(hpack.HeaderField{Name: statusName, Value: "400"}, hpack.HeaderField{Name: contentType, Value: "text/html"})
)

// encodeHuge makes response headers of hugeHeaderLen and more.
func encodeHuge() []byte {
	fields := make([]hpack.HeaderField, 0, 2+hugeHeaderLen>>10)
	fields = append(fields, hpack.HeaderField{Name: statusName, Value: "200"}, hpack.HeaderField{Name: contentType, Value: "application/grpc"})
	for i := range hugeHeaderLen >> 10 {
		fields = append(fields, hpack.HeaderField{Name: "x-huge-" + strconv.Itoa(i), Value: strings.Repeat("x", 1<<10)})
	}
	return encode(fields...)
}

// serveForeign plays a peer that speaks no HTTP/2, or not much of it. It reports
// whether it was one.
func (c *conn) serveForeign(nc net.Conn) bool {
	switch c.fault {
	case Silent:
		_, _ = io.Copy(io.Discard, nc)
	case HTTP1:
		if _, err := nc.Read(make([]byte, 1<<10)); err == nil {
			_, _ = io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	default:
		return false
	}
	return true
}

// misbehave queues what a fault sends of its own accord.
func (c *conn) misbehave() {
	switch c.fault {
	case CloseAtOnce:
		c.outbox.put(func(*http2.Framer) error { return errFinished })
	case GoAwayAtOnce:
		c.sendGoAway()
	case Garbage:
		c.outbox.put(func(fr *http2.Framer) error {
			return fr.WriteRawFrame(http2.FrameSettings, 0xff, nobodys, bytes.Repeat([]byte{0xff, 0, 0xaa}, 1<<12))
		})
	case PingFlood:
		c.flood(func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{1}) })
	case SettingsFlood:
		c.flood(func(fr *http2.Framer) error { return fr.WriteSettings() })
	case WindowFlood:
		c.flood(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(nobodys, 1) })
	case ResetFlood:
		c.flood(func(fr *http2.Framer) error { return fr.WriteRSTStream(nobodys, http2.ErrCodeCancel) })
	case EmptyDataFlood:
		c.flood(func(fr *http2.Framer) error { return fr.WriteData(1, false, nil) })
	default:
	}
}

// flood writes a frame again and again until the connection ends.
func (c *conn) flood(frame func(*http2.Framer) error) {
	c.outbox.put(func(fr *http2.Framer) error {
		for range floodBatch {
			if err := frame(fr); err != nil {
				return err
			}
		}
		c.flood(frame)
		return nil
	})
}

// mistreat answers a call as the fault wants it, and reports whether it did so.
func (c *conn) mistreat(id uint32) bool {
	switch c.fault {
	case ResetsCalls:
		c.answerWith(id, func(fr *http2.Framer) error { return fr.WriteRSTStream(id, http2.ErrCodeInternal) })
	case HugeHeaders:
		c.answerWith(id, func(fr *http2.Framer) error { return writeHeaderBlock(fr, id, hugeBlock) })
	case ContinuationFlood:
		c.answerWith(id, func(fr *http2.Framer) error {
			err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: answerHeaders})
			for err == nil {
				err = fr.WriteContinuation(id, false, oneHeader)
			}
			return err
		})
	case AnswersHTTP:
		c.answerWith(id, func(fr *http2.Framer) error {
			return errors.Join(
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: badRequest, EndHeaders: true}),
				fr.WriteData(id, true, []byte("<html>The SSL certificate error</html>")),
			)
		})
	case EndlessData:
		c.answerWith(id, func(fr *http2.Framer) error {
			c.flood(func(fr *http2.Framer) error { return fr.WriteData(id, false, make([]byte, maxFrame)) })
			return errors.Join(
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: answerHeaders, EndHeaders: true}),
				fr.WriteData(id, false, []byte{0, 0xff, 0xff, 0xff, 0xff}), // a message of 4 GiB
			)
		})
	case PushPromise:
		c.outbox.put(func(fr *http2.Framer) error {
			return fr.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: promise, EndHeaders: true})
		})
		return false
	default:
		return false
	}
	return true
}

// answerWith queues an answer, unless the client has ended the call by then.
func (c *conn) answerWith(id uint32, write func(*http2.Framer) error) {
	c.outbox.put(func(fr *http2.Framer) error {
		if !c.forgetStream(id) {
			return nil
		}
		if err := write(fr); err != nil {
			return err
		}
		return c.finished()
	})
}

// forgetStream takes a stream out of those that are open, and reports whether it
// was one.
func (c *conn) forgetStream(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.open[id]
	delete(c.open, id)
	return ok
}

// writeHeaderBlock writes a block of any length as the whole answer to a call.
func writeHeaderBlock(fr *http2.Framer, id uint32, block []byte) error {
	first := block[:min(len(block), maxFrame)]
	block = block[len(first):]
	err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(block) == 0, EndStream: true})
	for err == nil && len(block) > 0 {
		next := block[:min(len(block), maxFrame)]
		block = block[len(next):]
		err = fr.WriteContinuation(id, len(block) == 0, next)
	}
	return err
}
