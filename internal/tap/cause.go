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

// severity orders errors by how well they explain the end of a connection.
type severity int

const (
	ownClose   severity = iota // this side's own Close or deadline
	brokenPipe                 // the peer is gone; the reason is in what it sent, if anywhere
	closed                     // the peer closed the connection and said nothing
	network                    // reset, timed out, unreachable, a broken TLS record
	alert                      // the peer's TLS says why
	diagnosis                  // this side ended it for a reason, or knows what the peer did wrong
)

func severityOf(err error) severity {
	switch {
	case isAlert(err):
		return alert
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		return ownClose
	case errors.Is(err, io.EOF):
		return closed
	case errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return brokenPipe
	default:
		return network
	}
}

// isAlert reports whether err is a TLS alert from the peer. crypto/tls has no exported type
// for it, but sets an operation that it uses for nothing else.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// ending keeps the error that explains best why a connection ended.
type ending struct {
	mu       sync.Mutex // guards all below; held for a few assignments
	err      error
	severity severity
	ours     bool  // this side closed the connection
	why      error // the argument of Kill
}

// cause returns the error, nil unless the peer, the network or Kill ended the connection.
func (e *ending) cause() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// close notes that this side closes the connection. That explains every later error but an
// alert, which only the peer can send.
func (e *ending) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ours = true
}

// diagnose notes what the tap found wrong with the bytes from the peer.
func (e *ending) diagnose(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.severity < diagnosis && !e.ours {
		e.err, e.severity = err, diagnosis
	}
}

// kill notes that this side ends the connection, and why.
func (e *ending) kill(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why == nil && !e.ours {
		e.err, e.why, e.severity, e.ours = why, why, diagnosis, true
	}
}

// takeOver notes a Kill that came during the handshake.
func (e *ending) takeOver(r *socket) {
	if why := r.killed(); why != nil {
		e.kill(why)
	}
}

// transportError returns the error for the transport: the reason of Kill if that ended the
// connection, otherwise err.
func (e *ending) transportError(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why != nil {
		return e.why
	}
	return err
}

// record keeps err, returned by the operation that doing names, if it explains more than
// the error that is there.
func (e *ending) record(doing string, err error) {
	s := severityOf(err)
	e.mu.Lock()
	defer e.mu.Unlock()
	if s <= e.severity || e.ours && s < alert {
		return
	}
	e.severity = s
	switch s {
	case alert:
		e.err = fmt.Errorf("tap: refused by the peer: %w", err)
	case closed:
		e.err = fmt.Errorf("tap: closed by the peer: %w", err)
	default:
		e.err = fmt.Errorf("tap: %s: %w", doing, err)
	}
}
