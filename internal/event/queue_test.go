package event_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/davidwartell/go-grpcpool/internal/event"
)

// owner runs deliveries on goroutines that wait ends with, as pools and channels do.
type owner struct {
	closed  atomic.Bool
	started atomic.Int64
	running sync.WaitGroup
}

func (o *owner) run(deliver func()) bool {
	if o.closed.Load() {
		return false
	}
	o.started.Add(1)
	o.running.Go(deliver)
	return true
}

// receiver keeps what it gets, and fails the test if two events come at a time.
type receiver struct {
	t      *testing.T
	inside atomic.Int32

	mu  sync.Mutex // guards got
	got []event.Event
}

func (r *receiver) deliver(e event.Event) {
	if r.inside.Add(1) != 1 {
		r.t.Error("two events are delivered at a time")
	}
	r.mu.Lock()
	r.got = append(r.got, e)
	r.mu.Unlock()
	r.inside.Add(-1)
}

// connections are the IDs of what was delivered.
func (r *receiver) connections() (ids []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.got {
		ids = append(ids, e.Connection)
	}
	return ids
}

// story is the kinds, with the count where it is above 1.
func story(events []event.Event) (words []string) {
	for _, e := range events {
		word := string(e.Kind) + e.Address + e.Text
		if e.Count > 1 {
			word += "×" + strconv.Itoa(e.Count)
		}
		words = append(words, word)
	}
	return words
}

func upTo(first, last uint64) (ids []uint64) {
	for id := first; id <= last; id++ {
		ids = append(ids, id)
	}
	return ids
}

func TestEventsAreDeliveredInOrderByOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o owner
		r := &receiver{t: t}
		q := event.Queue{Deliver: func(e event.Event) { time.Sleep(time.Millisecond); r.deliver(e) }}
		for id := range uint64(10) {
			q.Add(event.Event{Kind: event.Dialled, Connection: id + 1}, o.run)
		}
		if !q.Delivering() {
			t.Error("nothing is being delivered")
		}
		q.Wait(time.Hour)
		if diff := cmp.Diff(upTo(1, 10), r.connections()); diff != "" || o.started.Load() != 1 || q.Delivering() {
			t.Errorf("%d goroutines; delivered (-want +got):\n%s", o.started.Load(), diff)
		}
		q.Add(event.Event{Kind: event.Lost}, o.run)
		o.running.Wait()
		if n := o.started.Load(); n != 2 || len(r.got) != 11 || r.got[10].Count != 1 {
			t.Errorf("%d goroutines, %d events, want 2 and 11", n, len(r.got))
		}
	})
}

func TestAnEventThatNobodyWantsIsOnlyKept(t *testing.T) {
	q := event.Queue{Deliver: func(event.Event) { t.Error("delivered") }}
	for id := range uint64(200) {
		q.Add(event.Event{Kind: event.Dialled, Connection: id}, nil)
	}
	q.Flush()
	q.Wait(time.Hour)
	latest := q.Latest()
	if len(latest) != event.KeptLatest || latest[0].Connection != 200-event.KeptLatest || latest[len(latest)-1].Connection != 199 {
		t.Errorf("%d events are kept, from %+v", len(latest), latest[0])
	}
	latest[0].Connection = 0
	if q.Latest()[0].Connection == 0 {
		t.Error("Latest shares its memory")
	}
}

func TestASlowReceiverLosesTheOldestAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o owner
		gate := make(chan struct{})
		r := &receiver{t: t}
		q := event.Queue{Deliver: func(e event.Event) { <-gate; r.deliver(e) }}
		for id := range uint64(3 * event.MaxPending) {
			q.Add(event.Event{Kind: event.Dialled, Connection: id + 1}, o.run)
			if id == 0 {
				synctest.Wait() // the first is with the receiver
			}
		}
		start := time.Now()
		q.Wait(time.Second)
		if time.Since(start) != time.Second {
			t.Errorf("Wait took %v", time.Since(start))
		}
		close(gate)
		o.running.Wait()
		want := append([]uint64{1}, upTo(2*event.MaxPending+1, 3*event.MaxPending)...)
		if diff := cmp.Diff(want, r.connections()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

func TestTheReceiverMayUseTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o owner
		var q event.Queue
		r := &receiver{t: t}
		q.Deliver = func(e event.Event) {
			r.deliver(e)
			if e.Connection < 5 && q.Delivering() {
				q.Add(event.Event{Kind: event.Dialled, Connection: e.Connection + 1}, o.run)
			}
			q.Latest()
		}
		q.Add(event.Event{Kind: event.Dialled, Connection: 1}, o.run)
		o.running.Wait()
		if diff := cmp.Diff(upTo(1, 5), r.connections()); diff != "" || o.started.Load() != 1 {
			t.Errorf("%d goroutines; delivered (-want +got):\n%s", o.started.Load(), diff)
		}
	})
}

func TestWhatComesTooLateForTheOwnerWaitsForFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var old, next owner
		r := &receiver{t: t}
		q := event.Queue{Deliver: r.deliver}
		old.closed.Store(true)
		q.Add(event.Event{Kind: event.Lost, Connection: 1}, old.run)
		q.Add(event.Event{Kind: event.Lost, Connection: 2}, old.run)
		if q.Delivering() || len(r.got) != 0 {
			t.Errorf("delivered %+v by a closed owner", r.got)
		}
		q.Wait(time.Hour) // nobody delivers: there is nothing to wait for
		q.Flush()
		q.Flush()
		if diff := cmp.Diff(upTo(1, 2), r.connections()); diff != "" {
			t.Errorf("Flush delivered (-want +got):\n%s", diff)
		}
		q.Add(event.Event{Kind: event.Lost, Connection: 3}, old.run)
		q.Add(event.Event{Kind: event.Lost, Connection: 4}, next.run) // another owner of the same queue
		next.running.Wait()
		if diff := cmp.Diff(upTo(1, 4), r.connections()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

func TestFlushLeavesARunningDeliveryAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o owner
		gate := make(chan struct{})
		r := &receiver{t: t}
		q := event.Queue{Deliver: func(e event.Event) { <-gate; r.deliver(e) }}
		q.Add(event.Event{Kind: event.Dialled, Connection: 1}, o.run)
		synctest.Wait()
		q.Add(event.Event{Kind: event.Dialled, Connection: 2}, o.run)
		q.Flush() // would block at the gate
		close(gate)
		o.running.Wait()
		if diff := cmp.Diff(upTo(1, 2), r.connections()); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
	})
}

func TestFloodsAreJoinedUntilSomethingElseHappens(t *testing.T) {
	type events = []event.Event
	for name, test := range map[string]struct {
		add  events
		want []string
	}{
		"of a kind": {
			events{{Kind: event.Starved}, {Kind: event.Starved}, {Kind: event.Starved}},
			[]string{"starved×3"},
		},
		"of two kinds": {
			events{{Kind: event.Starved}, {Kind: event.Tested}, {Kind: event.Starved}, {Kind: event.Tested}},
			[]string{"starved×2", "tested×2"},
		},
		"what has a count already": {
			events{{Kind: event.Starved, Count: 5}, {Kind: event.Starved, Count: 2}},
			[]string{"starved×7"},
		},
		"something rare between": {
			events{{Kind: event.DialFailed}, {Kind: event.Dialled}, {Kind: event.DialFailed}},
			[]string{"dial_failed", "dialled", "dial_failed"},
		},
		"of other addresses": {
			events{{Kind: event.DialFailed, Address: "a"}, {Kind: event.DialFailed, Address: "b"}, {Kind: event.DialFailed, Address: "a"}},
			[]string{"dial_failedb", "dial_faileda×2"},
		},
		"the text of the last": {
			events{{Kind: event.OpenFailed, Text: " one"}, {Kind: event.OpenFailed, Text: " two"}},
			[]string{"open_failed two×2"},
		},
		"leaks of two borrowers": {
			events{{Kind: event.Leaked, Text: " x"}, {Kind: event.Leaked, Text: " y"}, {Kind: event.Leaked, Text: " x"}},
			[]string{"leaked y", "leaked x×2"},
		},
		"never what is rare": {
			events{{Kind: event.Dialled}, {Kind: event.Dialled}, {Kind: event.Lost}, {Kind: event.Lost}},
			[]string{"dialled", "dialled", "lost", "lost"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			joining, plain := event.Queue{JoinFloods: true}, event.Queue{}
			for _, e := range test.add {
				joining.Add(e, nil)
				plain.Add(e, nil)
			}
			if diff := cmp.Diff(test.want, story(joining.Latest())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := len(plain.Latest()); n != len(test.add) {
				t.Errorf("a queue that joins nothing keeps %d of %d", n, len(test.add))
			}
		})
	}
}

// FuzzQueue adds events from several goroutines while a receiver is now and then slow,
// and owners close. Whatever happens, an owner that closes after the others and flushes
// has delivered everything that was not dropped, in each goroutine's order.
func FuzzQueue(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed, seed%2 == 0, uint16(300*seed+10))
	}
	f.Fuzz(func(t *testing.T, seed uint64, join bool, many uint16) {
		synctest.Test(t, func(t *testing.T) { randomQueue(t, seed, join, int(many%2000)) })
	})
}

func randomQueue(t *testing.T, seed uint64, join bool, many int) {
	r := &receiver{t: t}
	random := rand.New(rand.NewPCG(seed, 1))
	q := event.Queue{JoinFloods: join, Deliver: func(e event.Event) {
		if random.IntN(50) == 0 {
			time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		}
		r.deliver(e)
	}}
	const channels = 4
	var last owner
	owners := make([]*owner, channels)
	var added [channels]int
	var wg sync.WaitGroup
	for i := range owners {
		owners[i] = new(owner)
		wg.Go(func() {
			added[i] = addAtRandom(&q, owners[i], rand.New(rand.NewPCG(seed, uint64(i)+2)), uint64(i)+1, many)
		})
	}
	wg.Wait()
	for _, o := range owners {
		o.running.Wait()
	}
	q.Add(event.Event{Kind: event.Shutdown}, last.run)
	last.running.Wait()
	q.Flush()
	if q.Delivering() {
		t.Error("a delivery has not ended")
	}
	checkDelivered(t, &q, r.got, added[:])
}

// addAtRandom adds events of channel, numbered by Connection, and returns how many.
func addAtRandom(q *event.Queue, o *owner, r *rand.Rand, channel uint64, many int) (added int) {
	all := []event.Kind{event.Starved, event.Tested, event.Leaked, event.Dialled, event.Lost}
	for n := range many {
		switch r.IntN(40) {
		case 0:
			time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		case 1:
			o.closed.Store(r.IntN(2) == 0) // the goroutine is the only one to use o
		case 2:
			q.Latest()
		}
		q.Add(event.Event{Kind: all[r.IntN(len(all))], Channel: channel, Connection: uint64(n) + 1, Address: strconv.FormatUint(channel, 10)}, o.run)
		added++
	}
	return added
}

func checkDelivered(t *testing.T, q *event.Queue, got []event.Event, added []int) {
	t.Helper()
	sum, want := 0, 1
	for _, n := range added {
		want += n
	}
	before := make(map[uint64]uint64)
	for _, e := range got {
		sum += e.Count
		if e.Channel != 0 && e.Connection <= before[e.Channel] {
			t.Errorf("event %d of channel %d was delivered after its event %d", e.Connection, e.Channel, before[e.Channel])
		}
		before[e.Channel] = e.Connection
		if !q.JoinFloods && e.Count != 1 {
			t.Errorf("%+v was joined", e)
		}
	}
	dropped := want > event.MaxPending // it may have been
	if sum > want || !dropped && sum != want {
		t.Errorf("%d of %d events were delivered", sum, want)
	}
	if len(got) == 0 || got[len(got)-1].Kind != event.Shutdown {
		t.Fatal("the last event was not delivered last")
	}
	latest := q.Latest()
	if len(latest) > event.KeptLatest || latest[len(latest)-1].Kind != event.Shutdown {
		t.Errorf("%d events are kept, the last of them %+v", len(latest), latest[len(latest)-1])
	}
	if !slices.IsSortedFunc(latest, func(a, b event.Event) int {
		if a.Channel != b.Channel || a.Connection <= b.Connection {
			return 0
		}
		return 1
	}) {
		t.Errorf("the latest are out of order: %v", story(latest))
	}
}
