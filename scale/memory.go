package scale

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// Memory is what channels learn of the addresses that they connect to: how many
// streams a server allows, how long it takes to connect, and at what age it ends
// connections. A channel has one of its own, which lasts as long as the channel.
// Channels that come and go, such as those of a pool, can share one; see
// [WithMemory]. Its zero value is ready for use, and it is safe for concurrent use.
type Memory struct {
	mu     sync.Mutex // guards byAddr and what it points to
	byAddr map[string]*learned
}

// WithMemory has the channel use m and add to it. A nil m is an error of
// [NewClient].
func WithMemory(m *Memory) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if m == nil {
			return errors.New("scale: WithMemory(nil): want a Memory")
		}
		o.memory = m
		return nil
	})
}

// learned is what is known of an address. A duration of 0 is not known.
type learned struct {
	limit   uint32
	limited bool // limit is known

	connect    time.Duration // from the dial to the handshake, the last time that no packet was lost
	handshake  time.Duration // from there to READY, the last time
	timeouts   int           // handshakes in a row that ran into their patience
	unanswered int           // times in a row that it was not reached in time

	ejected int // connections in a row, none of which answered a probe soon

	shortLived int       // connections in a row that were lost soon
	judgedAt   time.Time // when the last of them was lost

	lifetime lifetime
}

// troubleLasts is how long short-lived connections are held against an address when
// another channel connects to it.
const troubleLasts = 5 * time.Second

// maxRemembered bounds the memory of a channel whose addresses come and go.
const maxRemembered = 1024

// note changes what is known of addr.
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

// rememberDialLocked notes what it took c to become READY.
func (c *connection) rememberDialLocked() {
	reached := c.reached()
	if reached.IsZero() {
		return
	}
	connect := max(reached.Sub(c.dialledAt), 1)
	p, told := c.tap.Progress()
	c.sub.policy.channel.memory.note(c.sub.addr(), func(l *learned) {
		l.noteConnect(connect, p, told)
		l.handshake, l.timeouts, l.unanswered = c.readyAt.Sub(reached), 0, 0
	})
}

// noteConnect notes that it took so long to connect. A dial whose packets were lost
// took as long as TCP waits before it asks again, which says nothing of the next one:
// then the round trip counts, if it is longer than what is known. Where the platform
// does not tell, a second or more is taken for that wait, unless nothing better is known.
func (l *learned) noteConnect(took time.Duration, p tap.Progress, told bool) {
	switch {
	case p.Resent > 0:
		l.connect = max(l.connect, min(took, p.RoundTrip))
	case told || l.connect == 0 || took < asksAgain:
		l.connect = took
	}
}

// recall copies what is known of addr.
func (m *Memory) recall(addr string) learned {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.byAddr[addr]; l != nil {
		return *l
	}
	return learned{}
}
