package scale

import (
	"container/list"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// DialBudget bounds the dials of any number of channels: how many are under way at once,
// and how many begin a second. Make one with [NewDialBudget] and give it to each channel
// with [WithDialBudget]. Its methods may be called concurrently.
//
// A dial that finds no place waits for one. The channels that wait take turns, in the order
// in which they came, with one dial each time, so that a channel with many dials does not
// keep the others waiting. Every dial of a channel counts: the first, those of growth, and
// those of successors. A dial that waits is not overdue, and costs no goroutine; if it is
// not needed any more it leaves the line.
//
// A server that accepts connections and does not finish the handshake keeps a place for as
// long as grpc-go waits, 20 seconds by default, and a channel that dials again goes to the
// end of the line. So with n places a dial waits at most that long for each n that are
// before it.
type DialBudget struct {
	most  int           // dials under way; 0: any number
	every time.Duration // between the beginnings of two dials; 0: none
	slack time.Duration // by how much a dial may begin before its time, so that a few may begin together

	mu       sync.Mutex // guards what follows; innermost, and nothing is called with it
	underWay int
	next     time.Time          // when the next dial would begin if all were evenly spaced
	turns    list.List          // of *line: the channels that wait, the next one first
	lines    map[*channel]*line // the same
	timer    *time.Timer        // grants places when the rate allows it; nil: not armed
	waiting  int                // dials
}

// line is what one channel has waiting.
type line struct {
	channel *channel
	places  list.List     // of *place, the first one first
	turn    *list.Element // of DialBudget.turns
}

// place is a dial's place in a budget, or in the line for it.
type place struct {
	budget *DialBudget
	grant  func() // called once, when the place is granted after a wait; must not block

	// Guarded by budget.mu.
	line    *line         // nil: it does not wait
	element *list.Element // of line.places
	held    bool          // it is counted in budget.underWay
}

// NewDialBudget makes a budget of so many dials under way, counted from their beginning
// until the connection is READY, or has failed, or is given up; and of so many dials a
// second, of which a tenth may begin at once. 0 means no bound. It returns an error if
// underWay is negative, or if perSecond is negative or not a finite number.
func NewDialBudget(underWay int, perSecond float64) (*DialBudget, error) {
	if underWay < 0 {
		return nil, fmt.Errorf("scale: NewDialBudget: %d dials under way: want 0 (any number) or more", underWay)
	}
	if perSecond < 0 || math.IsNaN(perSecond) || math.IsInf(perSecond, 0) {
		return nil, fmt.Errorf("scale: NewDialBudget: %v dials a second: want 0 (any number) or more", perSecond)
	}
	b := &DialBudget{most: underWay, lines: make(map[*channel]*line)}
	if perSecond > 0 {
		b.every = time.Duration(min(float64(time.Second)/perSecond, float64(longest)))
		b.slack = time.Second/10 - b.every
	}
	return b, nil
}

// WithDialBudget makes the channel's dials count in b, and wait when it is used up. b must
// not be nil.
func WithDialBudget(b *DialBudget) grpc.DialOption {
	return newOption(func(o *clientOptions) error {
		if b == nil || b.lines == nil {
			return errors.New("scale: WithDialBudget: want a DialBudget made by NewDialBudget")
		}
		o.budget = b
		return nil
	})
}

// UnderWay returns how many dials are under way.
func (b *DialBudget) UnderWay() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.underWay
}

// Waiting returns how many dials wait for a place.
func (b *DialBudget) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}

// take takes a place for a dial of ch, or one in the line. If granted is false, grant will
// be called when the dial may begin, unless leave is called before.
func (b *DialBudget) take(ch *channel, grant func()) (p *place, granted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p = &place{budget: b, grant: grant}
	now := time.Now()
	if b.waiting == 0 && b.mayBeginLocked(now) {
		b.beginLocked(p, now)
		return p, true
	}
	l := b.lines[ch]
	if l == nil {
		l = &line{channel: ch}
		l.turn = b.turns.PushBack(l)
		b.lines[ch] = l
	}
	p.line, p.element = l, l.places.PushBack(p)
	b.waiting++
	b.armLocked(now)
	return p, false
}

// leave gives p back, or leaves the line. It may be called several times.
func (p *place) leave() {
	b := p.budget
	b.mu.Lock()
	switch {
	case p.held:
		p.held = false
		b.underWay--
	case p.line != nil:
		b.removeLocked(p)
	}
	granted := b.grantLocked(time.Now())
	b.mu.Unlock()
	grantAll(granted)
}

// isHeld reports whether p is granted and not given back.
func (p *place) isHeld() bool {
	p.budget.mu.Lock()
	defer p.budget.mu.Unlock()
	return p.held
}

// mayBeginLocked reports whether a dial may begin.
func (b *DialBudget) mayBeginLocked(now time.Time) bool {
	return b.hasRoomLocked() && (b.every == 0 || !now.Before(b.next.Add(-max(b.slack, 0))))
}

func (b *DialBudget) hasRoomLocked() bool { return b.most == 0 || b.underWay < b.most }

func (b *DialBudget) beginLocked(p *place, now time.Time) {
	p.held = true
	b.underWay++
	b.next = latest(b.next, now).Add(b.every)
}

// removeLocked takes p out of its line.
func (b *DialBudget) removeLocked(p *place) {
	l := p.line
	l.places.Remove(p.element)
	p.line, p.element = nil, nil
	b.waiting--
	if l.places.Len() == 0 {
		b.turns.Remove(l.turn)
		delete(b.lines, l.channel)
	}
}

// grantLocked gives the free places to those that wait. The caller calls their grant when
// it has unlocked b.mu.
func (b *DialBudget) grantLocked(now time.Time) (granted []*place) {
	for b.waiting > 0 && b.mayBeginLocked(now) {
		l, _ := b.turns.Front().Value.(*line)
		p, _ := l.places.Front().Value.(*place)
		b.turns.MoveToBack(l.turn)
		b.removeLocked(p)
		b.beginLocked(p, now)
		granted = append(granted, p)
	}
	b.armLocked(now)
	return granted
}

func grantAll(granted []*place) {
	for _, p := range granted {
		p.grant()
	}
}

// armLocked has the next places granted when the rate allows it, if that is what the first
// in the line waits for.
func (b *DialBudget) armLocked(now time.Time) {
	wanted := b.waiting > 0 && b.hasRoomLocked()
	switch {
	case wanted && b.timer == nil:
		b.timer = time.AfterFunc(max(b.next.Add(-max(b.slack, 0)).Sub(now), 0), b.rateAllows)
	case !wanted && b.timer != nil:
		b.timer.Stop()
		b.timer = nil
	}
}

// rateAllows runs on the goroutine of the timer.
func (b *DialBudget) rateAllows() {
	b.mu.Lock()
	b.timer = nil
	granted := b.grantLocked(time.Now())
	b.mu.Unlock()
	grantAll(granted)
}

// takePlaceLocked takes a place for the dial of c. It is false if the dial has to wait;
// then placeGranted goes on.
func (c *connection) takePlaceLocked() bool {
	b := c.sub.policy.channel.budget
	if b == nil {
		return true
	}
	p := c.sub.policy
	var granted bool
	c.place, granted = b.take(p.channel, func() { p.tasks.run(c.placeGranted) }) // if the policy is closed, Shutdown has given the place back
	c.inLine = !granted
	return granted
}

// placeGranted begins the dial of c, which has waited for it.
func (c *connection) placeGranted() {
	s := c.sub
	s.update(func(e *effects) {
		if c.phase == phaseDialling && c.inLine && c.place != nil && c.place.isHeld() {
			c.inLine = false
			s.connectLocked(c, e)
		}
	})
}

// inLineLocked is how many of the dials wait for a place.
func (s *subchannel) inLineLocked() (n int) {
	for c := range s.all {
		n += boolToInt(c.phase == phaseDialling && c.inLine)
	}
	return n
}

// leaveLineLocked drops the dials that wait for a place, as one that did not has told how
// the address is. Otherwise callers would hear of it only when all of them have had their
// turns. Once callers have been told, such a dial keeps its turn. givenUp is not nil if that
// other dial was given up: whichever of them reports its end first brings the child the news.
func (s *subchannel) leaveLineLocked(givenUp error, e *effects) {
	for c := range s.all {
		if s.state == connectivity.Connecting && c.phase == phaseDialling && c.inLine {
			c.givenUp = givenUp
			s.retireLocked(c, e)
		}
	}
}

// leavePlaceLocked gives back the place of c's dial.
func (c *connection) leavePlaceLocked() {
	if c.place != nil {
		c.place.leave()
		c.place, c.inLine = nil, false
	}
}
