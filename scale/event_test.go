package scale_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// diary keeps the events of a channel.
type diary struct {
	mu     sync.Mutex // guards events
	events []scale.Event
}

func (d *diary) write(e scale.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// read is what happened, a line each.
func (d *diary) read() (lines []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		lines = append(lines, fmt.Sprintf("%s %d", e.Kind, e.Connection))
	}
	return lines
}

func TestEventsTellTheLifeOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		network, s := strictInMemory(t, h2test.WithLimit(1), h2test.WithDelay(100*time.Millisecond))
		c := network.channel(t, scale.WithEvents(d.write), scale.WithMaxConnections(2), scale.WithShrinkAfter(10*time.Second))
		mustHammer(t, c.stub, 2, 1)
		elapse(20 * time.Second)
		s.GoAway(false)
		synctest.Wait()
		network.refuse.Store(true)
		s.GoAway(false)
		synctest.Wait()
		_ = hammer(testContext(t), c.stub, 1, 1)
		synctest.Wait()
		want := []string{"dialled 1", "grew 0", "dialled 2", "shrank 2", "lost 1", "dialled 3", "lost 3"}
		got := d.read()
		if len(got) < len(want) || cmp.Diff(want, got[:len(want)]) != "" {
			t.Fatalf("the events are %q, want them to begin with %q", got, want)
		}
		if last := d.events[len(d.events)-1]; last.Kind != scale.EventDialFailed || last.Text == "" || strings.Contains(last.Text, "\n") {
			t.Errorf("the last event is %+v, want a dial that failed and why in one line", last)
		}
		if kept := c.observer.Snapshot().Events; cmp.Diff(d.events, kept) != "" {
			t.Errorf("the snapshot keeps other events: %s", cmp.Diff(d.events, kept))
		}
	})
}

func TestAHookMayLookAtTheChannel(t *testing.T) {
	var c *channel
	ready := make(chan struct{})
	looked := make(chan int, 10)
	c = newChannel(t, startServer(t, serverConfig{}).addr, scale.WithEvents(func(scale.Event) {
		<-ready
		looked <- c.connections() // would deadlock under a lock
	}))
	close(ready)
	mustHammer(t, c.stub, 1, 1)
	if n := <-looked; n != 1 {
		t.Errorf("the hook saw %d connections, want 1", n)
	}
}

func TestASnapshotKeepsTheLatestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, s := strictInMemory(t)
		c := network.channel(t)
		for range 100 {
			mustHammer(t, c.stub, 1, 1)
			s.GoAway(false)
			synctest.Wait()
		}
		kept := c.observer.Snapshot().Events
		if len(kept) != 64 {
			t.Fatalf("%d events are kept, want 64", len(kept))
		}
		for i, e := range kept[1:] {
			if e.Time.Before(kept[i].Time) || e.Connection < kept[i].Connection {
				t.Errorf("event %d is out of order: %+v after %+v", i+1, e, kept[i])
			}
		}
	})
}

func TestAConnectionHasANumberOfItsOwnThroughIdleMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		network, _ := strictInMemory(t)
		c := network.channel(t, scale.WithEvents(d.write), grpc.WithIdleTimeout(10*time.Second))
		for range 3 {
			mustHammer(t, c.stub, 1, 1)
			elapse(30 * time.Second)
			if got := c.GetState(); got != connectivity.Idle {
				t.Fatalf("the state is %v, want IDLE", got)
			}
		}
		if diff := cmp.Diff([]string{"dialled 1", "dialled 2", "dialled 3"}, d.read()); diff != "" {
			t.Errorf("the events (-want +got):\n%s", diff)
		}
	})
}
