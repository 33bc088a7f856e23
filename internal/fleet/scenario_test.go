package fleet_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
)

const (
	settled = 2 * time.Second // after which a connection has lasted, for every client's rules
	atOnce  = 5 * time.Millisecond
	patient = 5 * time.Minute // after the outage: a client that is not back by then counts as missing
)

// measure is what a scenario showed.
type measure struct {
	kind    string
	clients int
	missing int             // clients that never came back
	back    []time.Duration // from the server's return, or from the loss where others serve, to the first good call; sorted
	spent   int             // connections that the servers worked on
	needed  int             // of those, how many had to be
	dials   []int           // of each client since it lost its connection; sorted
	peak    int             // connections accepted in one second by one server
	busiest int             // dials that came to the busiest server
}

func (m *measure) quantile(q float64) time.Duration {
	if len(m.back) == 0 {
		return 0
	}
	return m.back[min(len(m.back)-1, int(q*float64(len(m.back))))]
}

func (m *measure) wasted() int { return m.spent - m.needed }

func (m *measure) meanDials() float64 {
	sum := 0
	for _, n := range m.dials {
		sum += n
	}
	return float64(sum) / float64(len(m.dials))
}

func (m *measure) mostDials() int { return m.dials[len(m.dials)-1] }

// fleet is the clients of a scenario.
type fleet struct {
	t       *testing.T
	kind    kind
	clients []*client
	before  []int64 // each client's dials when the counting began
	rng     *rand.Rand
}

func newFleet(t *testing.T, k kind) *fleet {
	t.Helper()
	t.Cleanup(jitter.Seed(*seedFlag))
	return &fleet{t: t, kind: k, rng: rand.New(rand.NewPCG(*seedFlag, 0))}
}

func (f *fleet) add(a address) {
	f.clients = append(f.clients, newClient(f.t, f.kind, a, uint64(len(f.clients)+1)))
}

// each runs do for every client at once, and waits.
func (f *fleet) each(do func(i int, c *client)) {
	var wg sync.WaitGroup
	for i, c := range f.clients {
		wg.Go(func() { do(i, c) })
	}
	wg.Wait()
}

// connect connects every client.
func (f *fleet) connect() {
	f.each(func(_ int, c *client) {
		ctx, cancel := context.WithTimeout(context.Background(), settled)
		defer cancel()
		if err := c.call(ctx); err != nil {
			f.t.Errorf("connecting: %v", err)
		}
	})
	time.Sleep(settled)
}

func (f *fleet) countAnew() {
	f.before = f.before[:0]
	for _, c := range f.clients {
		f.before = append(f.before, c.dials.Load())
	}
}

// comeBack has every client call until it is back from an outage.
func (f *fleet) comeBack(outage time.Duration) {
	f.each(func(_ int, c *client) {
		time.Sleep(time.Duration(c.rng.Int64N(int64(atOnce)))) // or they would all begin in one instant
		ctx, cancel := context.WithTimeout(context.Background(), outage+patient)
		defer cancel()
		_ = c.call(ctx) // measure.missing counts those that did not come back
	})
}

// closeAll closes the clients. No dial is under way when it returns.
func (f *fleet) closeAll() {
	f.each(func(_ int, c *client) { _ = c.close() })
	synctest.Wait()
}

// measured sums up; absent is how long the server of a client was not there.
func (f *fleet) measured(absent func(i int) time.Duration) *measure {
	m := &measure{kind: f.kind.name, clients: len(f.clients)}
	for i, c := range f.clients {
		if !c.hasConnection() {
			m.missing++
		}
		for _, d := range c.absences() {
			m.back = append(m.back, d-absent(i))
		}
		m.dials = append(m.dials, int(c.dials.Load()-f.before[i]))
	}
	slices.Sort(m.back)
	slices.Sort(m.dials)
	return m
}

func (m *measure) count(s *server) {
	spent, dials, peak := s.counts()
	m.spent += spent
	m.peak = max(m.peak, peak)
	m.busiest = max(m.busiest, dials)
}

// storm has n clients of one server lose it, for as long as outage, in which dials meet
// what m says. An outage of 0 is that of clients that all begin at once.
func storm(t *testing.T, k kind, n int, capacity float64, backlog int, outage time.Duration, m mode) (result *measure) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(0, backlog)
		f := newFleet(t, k)
		for range n {
			f.add(s)
		}
		if outage > 0 {
			s.backlog = 0
			f.connect()
			s.backlog = backlog
		}
		s.setRate(capacity)
		f.countAnew()
		s.countAnew()
		if outage > 0 {
			s.stop(m)
		} else {
			f.each(func(_ int, c *client) { c.lose() })
		}
		var back sync.WaitGroup
		back.Go(func() { f.comeBack(outage) })
		if outage > 0 {
			time.Sleep(outage)
			s.start()
			s.countAnew()
		}
		back.Wait()
		f.closeAll()
		s.work.Wait() // on those that left, too
		result = f.measured(func(int) time.Duration { return outage })
		result.count(s)
		result.needed = n
	})
	return result
}

// alone has n clients each lose a server of its own that is fast, for as long as outage and
// up to a fifth longer, so that the end is in step with nobody's pauses. In that time dials
// meet what m says.
func alone(t *testing.T, k kind, n int, outage time.Duration, m mode) (result *measure) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, k)
		servers, outages := make([]*server, n), make([]time.Duration, n)
		for i := range n {
			servers[i], outages[i] = newServer(0, 0), outage+time.Duration(f.rng.Int64N(int64(outage/5)))
			f.add(servers[i])
		}
		f.connect()
		f.countAnew()
		f.each(func(i int, _ *client) {
			servers[i].countAnew()
			servers[i].stop(m)
			time.AfterFunc(outages[i], servers[i].start)
		})
		f.comeBack(outage + outage/5)
		f.closeAll()
		result = f.measured(func(i int) time.Duration { return outages[i] })
		for _, s := range servers {
			s.work.Wait()
			result.count(s)
		}
		result.needed = n
	})
	return result
}

// rolling restarts servers behind a balancer, one after the other, under n clients that
// make five calls a second each.
func rolling(t *testing.T, k kind, n, servers int, capacity float64) (result *measure) {
	const down, between = time.Second, 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, k)
		b := &balancer{rng: f.rng}
		for range servers {
			b.servers = append(b.servers, newServer(0, 0))
		}
		for range n {
			f.add(b)
		}
		f.connect()
		f.countAnew()
		for _, s := range b.servers {
			s.setRate(capacity)
			s.countAnew()
		}
		ctx, stop := context.WithCancel(context.Background())
		var calling sync.WaitGroup
		calling.Go(func() { f.each(func(_ int, c *client) { c.keepCalling(ctx) }) })
		lost := 0
		for _, s := range b.servers {
			lost += s.stop(refuses)
			time.Sleep(down)
			s.start()
			time.Sleep(between)
		}
		stop()
		calling.Wait()
		f.closeAll()
		result = f.measured(func(int) time.Duration { return 0 })
		for _, s := range b.servers {
			s.work.Wait()
			result.count(s)
		}
		result.needed = lost
	})
	return result
}

// keepCalling makes some five calls a second until ctx ends.
func (c *client) keepCalling(ctx context.Context) {
	for pause(ctx, 100*time.Millisecond+time.Duration(c.rng.Int64N(int64(200*time.Millisecond)))) == nil {
		_ = c.call(ctx)
	}
}

func (c *client) hasConnection() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost.IsZero()
}
