package shared

import (
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
)

// RPCs fail and succeed on many goroutines at a time. What the pool reports takes turns all
// the same.
func TestFailingAndRecoveredTakeTurns(t *testing.T) {
	f, err := grpcpool.NewFactory("passthrough:///nowhere", insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	var last EventKind
	wrong, told := 0, 0
	p := New(f, 0, WithEvents(func(e Event) {
		if e.Kind != EventFailing && e.Kind != EventRecovered {
			return
		}
		told++
		if e.Kind == last || last == "" && e.Kind == EventRecovered {
			wrong++
		}
		last = e.Kind
	}))
	c, err := p.makeChannel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("no connection")
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for range 50000 {
				if i%2 == 0 {
					p.noteAway(c, why, 0)
				} else {
					p.noteBack(c)
				}
			}
		})
	}
	callers.Wait()
	p.noteAway(c, why, 0)
	p.events.Wait(time.Minute)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if wrong > 0 || told == 0 || last != EventFailing {
		t.Errorf("%d of %d events are out of turn, and the last is %q", wrong, told, last)
	}
}

// The RPC had failed, and the channel came back before the failure was noted.
func TestAnRPCThatFailedBeforeTheChannelWasBackDoesNotMarkIt(t *testing.T) {
	f, err := grpcpool.NewFactory("passthrough:///nowhere", insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	p := New(f, 0)
	defer p.Close()
	c, err := p.makeChannel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := c.connections.Load()
	c.noteConnected(EventDialled)
	p.noteAway(c, errors.New("no connection"), seen)
	if err := p.Stats().LastError; err != nil {
		t.Errorf("the pool is marked: %v", err)
	}
	p.noteAway(c, errors.New("no connection"), c.connections.Load())
	if p.Stats().LastError == nil {
		t.Error("the pool is not marked, though the channel was not back since")
	}
}
