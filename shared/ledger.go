package shared

import (
	"sync"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/event"
	"github.com/davidwartell/go-grpcpool/scale"
)

// ledger keeps count of one channel's connections and starved calls: by the events
// that the channel reports, and by snapshots of it.
type ledger struct {
	pool    *Pool
	channel uint64 // its number

	mu      sync.Mutex // guards what follows
	open    map[uint64]struct{}
	starved map[string]counter // by address
}

// report is called by the channel, for one event at a time.
func (l *ledger) report(e scale.Event) {
	if c := l.pool.current.Load(); c != nil && c.id == l.channel {
		defer c.noteEvent(e.Kind)
		if e.Kind == EventDialFailed && c.called.Load() {
			defer c.noteWaiting(e.Text)
		}
	}
	if !l.count(e.Kind, e.Connection) {
		return
	}
	l.pool.publish(Event{
		Time: e.Time, Kind: e.Kind, Channel: l.channel, Address: oneLine(e.Address), Connection: e.Connection,
		Took: e.Took, Text: oneLine(e.Text),
	})
}

// reportDial reports the dial of a channel that cannot be inspected, as one
// connection. If err is nil it stands.
func (l *ledger) reportDial(address string, took time.Duration, err error) {
	e := scale.Event{Time: time.Now(), Kind: EventDialled, Address: address, Took: took}
	if err != nil {
		e.Kind, e.Text = EventDialFailed, err.Error()
	}
	l.report(e)
}

// count keeps the set of open connections. It returns false for the end of a
// connection that has ended already: one that was replaced may be lost before its last
// call has ended, and it must count once.
func (l *ledger) count(kind EventKind, connection uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, open := l.open[connection]
	switch {
	case kind == EventDialled:
		if l.open == nil {
			l.open = make(map[uint64]struct{})
		}
		l.open[connection] = struct{}{}
	case event.EndsConnection(kind):
		delete(l.open, connection)
		return open
	}
	return true
}

// openConnections is how many connections are open.
func (l *ledger) openConnections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// counter adds up a count that starts again at 0 from time to time: a channel forgets
// its subchannels when it goes idle or is closed.
type counter struct {
	before uint64 // counted before the last restart
	last   uint64 // as last seen
}

// countStarved returns how many calls have ended without a stream since the channel
// was dialled, by this snapshot and those before it.
func (l *ledger) countStarved(now scale.Channel) (total uint64) {
	seen := make(map[string]uint64, len(now.Subchannels))
	for i := range now.Subchannels {
		seen[now.Subchannels[i].Address] += now.Subchannels[i].Starved
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.starved == nil {
		l.starved = make(map[string]counter)
	}
	for address := range seen {
		if _, known := l.starved[address]; !known {
			l.starved[address] = counter{}
		}
	}
	for address, c := range l.starved {
		if seen[address] < c.last {
			c.before += c.last
		}
		c.last = seen[address]
		l.starved[address] = c
		total += c.before + c.last
	}
	return total
}

// snapshot returns what c looks like inside, and how many of its calls have ended
// without a stream so far. Both are empty if the channel cannot be inspected.
func (c *channel) snapshot() (now scale.Channel, starved uint64) {
	if c.inspector == nil {
		return now, 0
	}
	now = c.inspector.Snapshot()
	return now, c.ledger.countStarved(now)
}
