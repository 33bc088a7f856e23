package scale

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// Memory holds what channels have learned about the addresses that they connect to: how
// many streams a server allows, how long connecting takes, and at what age the server
// ends connections. By default a channel has a Memory of its own, which is lost with it.
// Give one Memory to several channels with [WithMemory] if channels come and go, as those
// of a pool do. It remembers up to 1,024 addresses. Make one with new(Memory); it may be
// used concurrently.
type Memory struct {
	mu     sync.Mutex // guards byAddr and what it points to
	byAddr map[string]*learned
}

// WithMemory makes the channel use m, and add to it, in place of a [Memory] of its own. m
// must not be nil.
func WithMemory(m *Memory) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if m == nil {
			return errors.New("scale: WithMemory(nil): want a Memory; leave the option out for one that lasts as long as the channel")
		}
		o.memory = m
		return nil
	})
}

// learned is what is known about an address. A duration of 0 is not known.
type learned struct {
	limit   uint32
	limited bool // limit is known

	connect    time.Duration // from the dial to the handshake, when no packet was last lost
	handshake  time.Duration // from there to READY, the last time
	timeouts   int           // handshakes in a row that were late, or that the server did not acknowledge
	unanswered int           // dials in a row that did not reach it in time
	dialEnded  time.Time     // when the last of these was noted

	ejected int // connections in a row that were ejected, none having answered a probe soon

	shortLived int       // failures in a row that reached the server
	judgedAt   time.Time // when the last of them was

	lifetime lifetime
}

// troubleLasts is for how long failures that reached the server slow down the dials of
// another channel to the same address. It is longer than the longest pause.
const troubleLasts = 15 * time.Second

// slowLasts is for how long a handshake that took long, or dials that got no answer, have
// callers wait longer the next time.
const slowLasts = 10 * time.Minute

// maxRemembered limits the addresses in a Memory, for channels whose addresses change
// all the time. Beyond it one of them, any, is forgotten for each new one.
const maxRemembered = 1024

// note changes what is known about addr.
func (m *Memory) note(addr string, change func(*learned)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.byAddr[addr]
	if l == nil {
		if m.byAddr == nil {
			m.byAddr = make(map[string]*learned)
		}
		if len(m.byAddr) >= maxRemembered {
			for forgotten := range m.byAddr {
				delete(m.byAddr, forgotten)
				break
			}
		}
		l = new(learned)
		m.byAddr[addr] = l
	}
	change(l)
}

// forgetEjections forgets that connections to addr were ejected.
func (m *Memory) forgetEjections(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.byAddr[addr]; l != nil {
		l.ejected = 0
	}
}

// rememberDialLocked notes how long c took to become READY.
func (c *connection) rememberDialLocked() {
	reached := c.reached()
	if reached.IsZero() {
		return
	}
	connect := max(reached.Sub(c.dialledAt), 1)
	p, told := c.tap.Progress()
	c.sub.policy.channel.memory.note(c.sub.addr(), func(l *learned) {
		l.noteConnect(connect, p, told)
		l.handshake, l.timeouts, l.unanswered, l.dialEnded = c.readyAt.Sub(reached), 0, 0, c.readyAt
	})
}

// noteConnect notes how long connecting took. If packets were lost, that time includes
// TCP's wait before it sends again, which does not help to predict the next dial: then
// the round trip is noted instead, if it is longer than what is known. Where the
// platform does not report lost packets, a second or more is taken for such a wait,
// unless nothing better is known. A dial never needs longer than it took.
func (l *learned) noteConnect(took time.Duration, p tap.Progress, told bool) {
	switch {
	case p.Resent > 0:
		l.connect = min(max(l.connect, p.RoundTrip), took)
	case told || l.connect == 0 || took < max(asksAgain, l.connect):
		l.connect = took
	}
}

// noteFailedDial is told of a dial that was not READY in time, which *count counts.
func (l *learned) noteFailedDial(count *int) {
	l.forgetSlow()
	*count++
	l.dialEnded = time.Now()
}

// forgetSlow forgets that the address was slow, if that is long ago.
func (l *learned) forgetSlow() {
	if time.Since(l.dialEnded) > slowLasts {
		l.handshake, l.timeouts, l.unanswered = 0, 0, 0
	}
}

// recall returns a copy of what is known about addr.
func (m *Memory) recall(addr string) (known learned) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.byAddr[addr]; l != nil {
		known = *l
	}
	known.forgetSlow()
	return known
}
