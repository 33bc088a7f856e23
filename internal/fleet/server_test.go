package fleet_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	roundTrip = time.Millisecond       // of a dial
	seesAfter = 500 * time.Millisecond // when a balancer knows that a server is down
	firstSYN  = time.Second            // after which TCP asks again (RFC 6298, section 2); doubling
)

// mode is what a server's address does with a dial.
type mode int

const (
	up      mode = iota
	refuses      // nothing listens
	cuts         // a balancer accepts, finds no backend and closes
	mutes        // a balancer accepts, and nobody answers
	dark         // packets are lost, those of connections too
)

// server is a server that begins connections one at a time.
type server struct {
	every   time.Duration // what one costs; 0: nothing
	backlog int           // how many may wait; 0: any number

	work sync.WaitGroup

	mu       sync.Mutex // guards what follows
	mode     mode
	stopped  time.Time          // the last time
	conns    map[*conn]struct{} // accepted, not known to have ended
	queue    []*conn            // not begun
	darkened map[*conn]struct{} // whose packets are lost
	running  bool               // a goroutine works on the queue
	spent    int                // connections that the server has worked on
	dials    int                // that came here, refused ones included
	first    time.Time          // since when arrivals are kept
	seconds  []int              // arrivals in each second since first, refused ones not counted
}

func newServer(rate float64, backlog int) *server {
	s := &server{backlog: backlog, conns: make(map[*conn]struct{})}
	s.setRate(rate)
	return s
}

// setRate bounds the connections begun a second; 0 means no bound.
func (s *server) setRate(rate float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.every = 0
	if rate > 0 {
		s.every = time.Duration(float64(time.Second) / rate)
	}
}

// accept is a SYN that arrives. It returns nil and no error if it is dropped.
func (s *server) accept(c *client) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	switch {
	case s.mode == refuses:
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	case s.mode == dark, s.backlog > 0 && len(s.queue) >= s.backlog:
		return nil, nil //nolint:nilnil // see above
	}
	s.noteArrivalLocked()
	nc := newConn(c)
	switch s.mode {
	case cuts:
		time.AfterFunc(roundTrip, func() { nc.end(io.EOF) })
	case mutes: // for good: the balancer does not move it to a backend later
	default:
		s.conns[nc] = struct{}{}
		s.queue = append(s.queue, nc)
		if !s.running {
			s.running = true
			s.work.Go(s.run)
		}
	}
	return nc, nil
}

func (s *server) noteArrivalLocked() {
	if s.first.IsZero() {
		return
	}
	second := int(time.Since(s.first) / time.Second)
	for len(s.seconds) <= second {
		s.seconds = append(s.seconds, 0)
	}
	s.seconds[second]++
}

// run begins the connections that wait, until none is left.
func (s *server) run() {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		nc := s.queue[0]
		s.queue = s.queue[1:]
		every := s.every
		s.mu.Unlock()

		if closed, spoke := nc.gone(); closed && !spoke {
			s.forget(nc)
			continue
		}
		if every > 0 {
			time.Sleep(every) // virtual
		}
		s.mu.Lock()
		s.spent++
		s.mu.Unlock()
		if !nc.serve() {
			s.forget(nc)
		}
	}
}

func (s *server) forget(nc *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, nc)
}

// stop ends every connection, or loses its packets if m is dark, and does to dials what m
// says. The clients that had a working connection take note that it is lost.
func (s *server) stop(m mode) (lost int) {
	s.mu.Lock()
	s.mode, s.stopped = m, time.Now()
	conns := s.conns
	s.conns = make(map[*conn]struct{})
	s.queue = nil
	s.mu.Unlock()
	for nc := range conns {
		if nc.used() {
			lost++
			nc.client.lose()
		}
		if m == dark {
			nc.darken()
		} else {
			nc.end(io.EOF)
		}
	}
	if m == dark {
		s.mu.Lock()
		s.darkened = conns
		s.mu.Unlock()
	}
	return lost
}

// start has the server take connections. It does not know those of before.
func (s *server) start() {
	s.mu.Lock()
	s.mode = up
	darkened := s.darkened
	s.darkened = nil
	s.mu.Unlock()
	for nc := range darkened {
		nc.brighten()
	}
}

// countAnew forgets what was counted so far.
func (s *server) countAnew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent, s.dials, s.seconds, s.first = 0, 0, nil, time.Now()
}

// counts returns how many connections the server has worked on, how many dials came to it,
// and the most of them that it accepted in one second.
func (s *server) counts() (spent, dials, peak int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seconds) > 0 {
		peak = slices.Max(s.seconds)
	}
	return s.spent, s.dials, peak
}

// balancer spreads dials over the servers that are up, as far as it knows.
type balancer struct {
	servers []*server

	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func (b *balancer) accept(c *client) (*conn, error) {
	var live []*server
	for _, s := range b.servers {
		s.mu.Lock()
		if s.mode == up || time.Since(s.stopped) < seesAfter {
			live = append(live, s)
		}
		s.mu.Unlock()
	}
	if len(live) == 0 {
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	}
	b.mu.Lock()
	i := b.rng.IntN(len(live))
	b.mu.Unlock()
	return live[i].accept(c)
}

// address is what a client dials: a server, or a balancer before several.
type address interface {
	accept(c *client) (*conn, error)
}

// dial is TCP's part of a dial.
func (c *client) dial(ctx context.Context, _ string) (net.Conn, error) {
	c.dials.Add(1)
	for again := firstSYN; ; again *= 2 {
		if err := pause(ctx, roundTrip); err != nil {
			return nil, err
		}
		nc, err := c.address.accept(c)
		if err != nil {
			return nil, err // not nc: it would not be a nil interface
		}
		if nc != nil {
			return nc, nil
		}
		if err := pause(ctx, again); err != nil {
			return nil, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
