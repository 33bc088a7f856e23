package tap

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// telling ranks errors by how much they say about the end of a connection.
type telling int

const (
	nothing    telling = iota // this side's own Close or deadline
	brokenPipe                // the peer is gone; why stands in what it sent, if anywhere
	closed                    // the peer closed without a word
	network                   // reset, timed out, unreachable, a broken TLS record
	alert                     // the peer's TLS says why
	verdict                   // this side has ended it for a reason, or has seen what the peer does wrong
)

func rank(err error) telling {
	switch {
	case isAlert(err):
		return alert
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		return nothing
	case errors.Is(err, io.EOF):
		return closed
	case errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return brokenPipe
	default:
		return network
	}
}

// isAlert reports whether err is an alert that the peer sent. crypto/tls has no
// exported type for it, but gives it an operation of its own.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// ending keeps the most telling of the errors that ended a connection.
type ending struct {
	mu   sync.Mutex // guards all below; held for a few assignments
	err  error
	rank telling
	ours bool  // this side closed the connection
	why  error // of Kill
}

// cause is nil unless the peer or the network ended the connection.
func (e *ending) cause() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// close notes that this side closes the connection. What fails from now on
// fails for that reason, but for an alert, which only the peer can send.
func (e *ending) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ours = true
}

// judge keeps what the tap found wrong with what the peer sent.
func (e *ending) judge(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rank < verdict && !e.ours {
		e.err, e.rank = err, verdict
	}
}

// kill notes that this side ends the connection, and why.
func (e *ending) kill(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why == nil && !e.ours {
		e.err, e.why, e.rank, e.ours = why, why, verdict, true
	}
}

// takeOver notes the Kill of a connection that came during the handshake.
func (e *ending) takeOver(r *socket) {
	if why := r.killed(); why != nil {
		e.kill(why)
	}
}

// told is what the transport is told about err: the reason of Kill, if that is
// what ended the connection.
func (e *ending) told(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why != nil {
		return e.why
	}
	return err
}

// record keeps err, met while doing something, if it says more than what is
// there.
func (e *ending) record(doing string, err error) {
	r := rank(err)
	e.mu.Lock()
	defer e.mu.Unlock()
	if r <= e.rank || e.ours && r < alert {
		return
	}
	e.rank = r
	switch r {
	case alert:
		e.err = fmt.Errorf("tap: refused by the peer: %w", err)
	case closed:
		e.err = fmt.Errorf("tap: closed by the peer: %w", err)
	default:
		e.err = fmt.Errorf("tap: %s: %w", doing, err)
	}
}
