package shared_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// told are the events that a hook was told.
type told struct {
	mu     sync.Mutex // guards events
	events []shared.Event
}

func (l *told) note(e shared.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// all are the events so far.
func (l *told) all() []shared.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// story is what happened, in short: "kind" or "kind×count", of channel c "c:kind".
func (l *told) story() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return story(l.events)
}

func story(events []shared.Event) string {
	words := make([]string, 0, len(events))
	for _, e := range events {
		word := string(e.Kind)
		if e.Channel != 0 {
			word = fmt.Sprintf("%d:%s", e.Channel, word)
		}
		if e.Count > 1 {
			word += fmt.Sprintf("×%d", e.Count)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func TestEventsTellTheLifeOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, log := &fakeFactory{}, &told{}
		p := shared.New(f, time.Minute, shared.WithEvents(log.note))
		borrow(t, p)
		time.Sleep(2 * time.Second)
		borrow(t, p) // tested first
		held := get(t, p)
		f.script(nil, failTest)
		time.Sleep(2 * time.Second) // fails its test in the background, and is replaced
		f.script(nil, nil)
		held.Return()
		time.Sleep(2 * time.Minute) // idle
		f.script(failDial, nil)
		if _, err := p.Get(t.Context()); !errors.Is(err, errScripted) {
			t.Errorf("Get: %v", err)
		}
		time.Sleep(time.Second)
		f.script(nil, nil)
		borrow(t, p)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		got := log.story()
		for _, part := range []string{
			"1:dialled, 1:opened, 1:tested", "1:test_failed", "2:dialled, 2:opened, 1:retired", "1:closed_retired", "2:closed_idle", "3:dial_failed, 3:open_failed, failing",
			"4:dialled, 4:opened, recovered", "4:closed_at_shutdown, shut_down",
		} {
			if !strings.Contains(got, part) {
				t.Errorf("the story does not have %q:\n%s", part, got)
			}
		}
		if kept := story(p.Stats().Events); kept != got {
			t.Errorf("Stats has\n%s\nthe hook was told\n%s", kept, got)
		}
		wantBalance(t, log.events)
	})
}

// wantBalance fails unless every connection that was dialled was closed, as the
// events of a closed pool tell it.
func wantBalance(t *testing.T, events []shared.Event) {
	t.Helper()
	dialled, closed := 0, 0
	for i, e := range events {
		switch e.Kind {
		case shared.EventDialled:
			dialled += e.Count
		case shared.EventShrank, shared.EventReplaced, shared.EventEjected, shared.EventLost:
			closed += e.Count
		default:
			closed += e.Connections
		}
		if i > 0 && e.Time.Before(events[i-1].Time.Add(-time.Millisecond)) {
			t.Errorf("%v comes after %v", events[i-1], e)
		}
	}
	if dialled != closed || dialled == 0 {
		t.Errorf("%d connections dialled, %d closed:\n%s", dialled, closed, story(events))
	}
}

func TestTheKindsOfConnectionsAreScales(t *testing.T) {
	for own, theirs := range map[shared.EventKind]scale.EventKind{
		shared.EventDialled: scale.EventDialled, shared.EventDialFailed: scale.EventDialFailed, shared.EventGrew: scale.EventGrew,
		shared.EventShrank: scale.EventShrank, shared.EventReplaced: scale.EventReplaced, shared.EventEjected: scale.EventEjected,
		shared.EventLost: scale.EventLost, shared.EventStarved: scale.EventStarved,
	} {
		if string(own) != string(theirs) {
			t.Errorf("%q is %q in package scale", own, theirs)
		}
	}
}

// tellingFactory is an InspectableFactory whose channels tell what the test says.
type tellingFactory struct {
	fakeFactory

	tell func(scale.Event) // of the latest channel
	fail error
}

func (f *tellingFactory) Target() string { return "dns:///orders.example:443" }

func (f *tellingFactory) NewInspectedConnection(ctx context.Context) (*grpc.ClientConn, grpcpool.Inspector, error) {
	f.tell = grpcpool.EventsFromContext(ctx)
	if f.fail != nil {
		f.tell(scale.Event{Time: time.Now(), Kind: scale.EventDialled, Connection: 1})
		return nil, nil, f.fail
	}
	conn, err := grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
	return conn, new(scale.Observer), err
}

func TestEventsOfAChannelsInsideArePassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, log := &tellingFactory{fail: errScripted}, &told{}
		p := shared.New(f, time.Minute, shared.WithEvents(log.note))
		if got := p.Stats().Target; got != f.Target() {
			t.Errorf("the target before the first dial is %q", got)
		}
		if _, err := p.Get(t.Context()); !errors.Is(err, errScripted) {
			t.Errorf("Get: %v", err)
		}
		f.fail = nil
		time.Sleep(time.Second)
		borrow(t, p)
		at := time.Now()
		for id := range uint64(4) {
			f.tell(scale.Event{Time: at, Kind: scale.EventDialled, Address: "10.0.0.1:443", Connection: id + 1, Took: time.Millisecond})
		}
		f.tell(scale.Event{Time: at, Kind: scale.EventLost, Address: "10.0.0.1:443", Connection: 1, Took: time.Hour, Text: "bad\nnews\x1b[31m"})
		f.tell(scale.Event{Time: at, Kind: scale.EventReplaced, Address: "10.0.0.1:443", Connection: 2})
		f.tell(scale.Event{Time: at, Kind: scale.EventLost, Address: "10.0.0.1:443", Connection: 2}) // ends once
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		want := "1:dialled, 1:open_failed, failing, 2:opened, recovered, " +
			"2:dialled, 2:dialled, 2:dialled, 2:dialled, 2:lost, 2:replaced, 2:closed_at_shutdown, shut_down"
		if got := log.story(); got != want {
			t.Errorf("the story is\n%s\nwant\n%s", got, want)
		}
		wantBalance(t, log.events)
		lost := log.events[9]
		if lost.Text != `bad\u000anews\u001b[31m` || lost.Took != time.Hour || lost.Connection != 1 || lost.Address != "10.0.0.1:443" || !lost.Time.Equal(at) {
			t.Errorf("the loss is told as %+v", lost)
		}
		if p.Stats().Target != "passthrough:///nowhere" {
			t.Errorf("the target is %q", p.Stats().Target)
		}
	})
}

func TestAFloodOfEventsIsToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, log := &fakeFactory{}, &told{}
		f.script(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil)
		p := newPool(t, f, 0, shared.WithEvents(log.note))
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := p.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Get: %v", err)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		if got := story(p.Stats().Events); got != "waited_too_long×1000" {
			t.Errorf("Stats has %q", got)
		}
		n := 0
		for _, e := range log.events {
			n += e.Count
			if e.Kind != shared.EventWaitedTooLong || e.Took != time.Second || !strings.Contains(e.Text, "deadline exceeded") {
				t.Errorf("told of %+v", e)
			}
		}
		if n != 1000 {
			t.Errorf("told of %d, want 1000", n)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		_, _ = p.Get(gone)
		if got := story(p.Stats().Events); got != "waited_too_long×1000" {
			t.Errorf("a caller that was called off counts as one that waited too long: %q", got)
		}
	})
}

func TestStatsKeepsTheLatestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &tellingFactory{}
		p := newPool(t, f, 0)
		borrow(t, p)
		for id := range uint64(200) {
			f.tell(scale.Event{Time: time.Now(), Kind: scale.EventDialled, Connection: id})
		}
		events := p.Stats().Events
		if len(events) != 64 || events[0].Connection != 136 || events[63].Connection != 199 {
			t.Errorf("%d events, from %+v to %+v", len(events), events[0], events[len(events)-1])
		}
	})
}

func TestASlowHookLosesTheOldestAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, gate := &tellingFactory{}, make(chan struct{})
		var log told
		p := shared.New(f, 0, shared.WithEvents(func(e shared.Event) {
			<-gate
			log.note(e)
		}))
		borrow(t, p)
		for id := range uint64(5000) {
			f.tell(scale.Event{Time: time.Now(), Kind: scale.EventDialled, Connection: id + 1})
		}
		borrow(t, p)
		done := make(chan error)
		go func() { done <- p.Close() }()
		synctest.Wait()
		close(gate)
		if err := <-done; err == nil { // it waits for the hook, which has been told by then
			if n := len(log.events); n < 1024 || n > 2*1024+2 || log.events[n-1].Kind != shared.EventShutdown {
				t.Errorf("told of %d events, the last of them %+v", n, log.events[n-1])
			}
		} else {
			t.Error(err)
		}
	})
}

func TestAHookMayUseThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *shared.Pool
		var states []shared.State
		p = newPool(t, &fakeFactory{}, 0, shared.WithEvents(func(e shared.Event) {
			states = append(states, p.Stats().State)
			if e.Kind == shared.EventOpened {
				p.Holders()
				borrow(t, p)
			}
		}))
		borrow(t, p)
		synctest.Wait()
		if !slices.Contains(states, shared.StateReady) {
			t.Errorf("the states are %v", states)
		}
	})
}

func TestHooksAreToldOfWaitsAndUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits, uses []time.Duration
		var failures []error
		f := &fakeFactory{}
		f.script(func(context.Context) error { time.Sleep(3 * time.Second); return nil }, nil)
		var attached *shared.Pool
		p := newPool(t, f, 0, shared.WithHooks(func(p *shared.Pool) shared.Hooks {
			attached = p
			return shared.Hooks{
				Waited: func(took time.Duration, err error) { waits, failures = append(waits, took), append(failures, err) },
				Used:   func(took time.Duration) { uses = append(uses, took) },
			}
		}))
		if attached != p {
			t.Error("the hooks were attached to another pool")
		}
		l := get(t, p) // waits for the dial
		borrow(t, p)   // need not wait
		time.Sleep(5 * time.Second)
		l.Return()
		l.Return()
		if l.Connection() != nil {
			t.Error("a returned lease has a connection")
		}
		if !slices.Equal(waits, []time.Duration{3 * time.Second}) || failures[0] != nil {
			t.Errorf("the waits are %v, their errors %v", waits, failures)
		}
		if !slices.Equal(uses, []time.Duration{0, 5 * time.Second}) {
			t.Errorf("the uses are %v", uses)
		}
		if n := p.Stats().Leases; n != 0 {
			t.Errorf("%d leases out", n)
		}
	})
}
