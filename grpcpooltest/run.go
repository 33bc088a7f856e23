package grpcpooltest

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// run is a server from Listen to Stop. gRPC's servers change in it: one that was told
// to send GOAWAY accepts nothing any more, so its successor takes the listener over.
type run struct {
	listener net.Listener
	accepted *atomic.Int64

	quit       chan struct{}  // closed by the first stop
	goroutines sync.WaitGroup // grows only under mu and while not stopped

	mu      sync.Mutex // guards what follows
	stopped bool
	current *generation   // takes new connections; nil before serve
	older   []*generation // have connections, maybe
	err     error         // what went wrong while serving
}

// generation is one of gRPC's servers, with its own view of the listener.
type generation struct {
	*grpc.Server

	view *view
}

// view is the listener as one generation sees it: closing it closes nothing else.
type view struct {
	net.Listener

	conns   chan acceptance
	closing sync.Once
	closed  chan struct{}
}

// acceptance is what Accept of the listener returned.
type acceptance struct {
	conn net.Conn
	err  error
}

func (v *view) Accept() (net.Conn, error) {
	select {
	case a := <-v.conns:
		return a.conn, a.err
	case <-v.closed:
		return nil, net.ErrClosed
	}
}

func (v *view) Close() error {
	v.closing.Do(func() { close(v.closed) })
	return nil
}

func newRun(l net.Listener, accepted *atomic.Int64) *run {
	return &run{listener: l, accepted: accepted, quit: make(chan struct{})}
}

// serve begins to serve, once.
func (r *run) serve(newServer func() *grpc.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.current != nil {
		return
	}
	r.beginLocked(newServer())
	r.goroutines.Go(r.accept)
}

// succeed gives new connections to a new server. If goAway, the older ones tell their
// clients to go.
func (r *run) succeed(newServer func() *grpc.Server, goAway bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.current == nil {
		return
	}
	r.older = append(r.older, r.current)
	r.beginLocked(newServer())
	if !goAway {
		return
	}
	for _, g := range r.older {
		r.goroutines.Go(func() {
			g.GracefulStop()
			r.forget(g)
		})
	}
}

func (r *run) beginLocked(server *grpc.Server) {
	g := &generation{server, &view{Listener: r.listener, conns: make(chan acceptance), closed: make(chan struct{})}}
	r.current = g
	r.goroutines.Go(func() {
		if err := g.Serve(g.view); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if !r.stopped {
				r.err = errors.Join(r.err, fmt.Errorf("grpcpooltest: serving at %s: %w", r.listener.Addr(), err))
			}
		}
	})
}

func (r *run) forget(g *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.older = slices.DeleteFunc(r.older, func(o *generation) bool { return o == g })
}

// accept gives what the listener accepts to the current generation. After an error that
// passes, gRPC's server pauses before it takes the next.
func (r *run) accept() {
	for {
		conn, err := r.listener.Accept()
		if err == nil {
			r.accepted.Add(1)
		}
		if !r.hand(acceptance{conn, err}) {
			return
		}
		var passing interface{ Temporary() bool }
		if err != nil && (!errors.As(err, &passing) || !passing.Temporary()) {
			return
		}
	}
}

// hand gives a to the current generation. It is false when the run has been stopped.
func (r *run) hand(a acceptance) bool {
	for {
		r.mu.Lock()
		v := r.current.view
		r.mu.Unlock()
		select {
		case v.conns <- a:
			return true
		case <-r.quit:
			if a.conn != nil {
				_ = a.conn.Close()
			}
			return false
		case <-v.closed: // there is a successor
		}
	}
}

// stop ends everything: at once, or as soon as calls have ended. A second stop may
// hurry a first one.
func (r *run) stop(how func(*grpc.Server)) error {
	r.mu.Lock()
	if !r.stopped {
		r.stopped = true
		close(r.quit)
	}
	generations := slices.Clone(r.older)
	if r.current != nil {
		generations = append(generations, r.current)
	}
	r.mu.Unlock()
	_ = r.listener.Close()
	var stopping sync.WaitGroup
	for _, g := range generations {
		stopping.Go(func() { how(g.Server) })
	}
	stopping.Wait()
	r.goroutines.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
