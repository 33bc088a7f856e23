package shared

import (
	"sync"

	"github.com/davidwartell/go-grpcpool"
)

// inside is what a pool remembers of the inside of a channel: from the events that
// it has told, and from looks at it.
type inside struct {
	p       *Pool
	channel uint64

	mu      sync.Mutex // guards what follows
	open    map[uint64]struct{}
	starved map[string]counter // by address
}

// tell is called by the channel, one event at a time.
func (in *inside) tell(e grpcpool.Event) {
	kind := EventKind(e.Kind)
	if !in.note(kind, e.Connection) {
		return
	}
	in.p.pass(Event{
		Time: e.Time, Kind: kind, Channel: in.channel, Address: oneLine(e.Address), Connection: e.Connection,
		Took: e.Took, Count: 1, Text: oneLine(e.Text),
	})
}

// note keeps count of the open connections. It is false for the end of a connection
// that has ended before, such as one that was replaced and is lost before its last
// call has ended: it ends once.
func (in *inside) note(kind EventKind, connection uint64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, open := in.open[connection]
	switch {
	case kind == EventDialled:
		if in.open == nil {
			in.open = make(map[uint64]struct{})
		}
		in.open[connection] = struct{}{}
	case kind.ends():
		delete(in.open, connection)
		return open
	}
	return true
}

// left is how many connections are open.
func (in *inside) left() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.open)
}

// counter makes one count of a counter that begins anew now and then: a channel
// forgets its subchannels when it goes idle or is closed.
type counter struct {
	before uint64 // counted before it began anew
	last   uint64
}

// countStarved is how many calls ended without a stream since the channel was
// dialled, by this look at it and those before.
func (in *inside) countStarved(now grpcpool.Channel) (total uint64) {
	seen := make(map[string]uint64, len(now.Subchannels))
	for i := range now.Subchannels {
		seen[now.Subchannels[i].Address] += now.Subchannels[i].Starved
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.starved == nil {
		in.starved = make(map[string]counter)
	}
	for address := range seen {
		if _, known := in.starved[address]; !known {
			in.starved[address] = counter{}
		}
	}
	for address, c := range in.starved {
		if seen[address] < c.last {
			c.before += c.last
		}
		c.last = seen[address]
		in.starved[address] = c
		total += c.before + c.last
	}
	return total
}

// look is the inside of c, or nothing if the factory does not offer it, and how
// many of its calls ended without a stream so far.
func (c *channel) look() (now grpcpool.Channel, starved uint64) {
	if c.inside == nil {
		return now, 0
	}
	now = c.inside.Snapshot()
	return now, c.told.countStarved(now)
}
