package scale

import (
	"sync"
	"time"
)

// tasks are the goroutines and timers of a policy, which waits for them when it
// is closed.
type tasks struct {
	mu      sync.Mutex // guards closed, and Add against Wait
	closed  bool
	running sync.WaitGroup
}

// run runs f on a goroutine of its own. After wait it does nothing, and says so:
// the channel is gone then, and gRPC closes what is left of it.
func (t *tasks) run(f func()) bool {
	begun := t.begin()
	if begun {
		go func() {
			defer t.running.Done()
			f()
		}()
	}
	return begun
}

// after runs f when d has passed. Before that, stop keeps it from running; whoever
// called after must call stop before wait.
func (t *tasks) after(d time.Duration, f func()) (stop func()) {
	if !t.begin() {
		return func() {}
	}
	timer := time.AfterFunc(d, func() {
		defer t.running.Done()
		f()
	})
	return func() {
		if timer.Stop() {
			t.running.Done()
		}
	}
}

func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Add(1)
	return true
}

// wait lets nothing more begin, and waits for what runs.
func (t *tasks) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.running.Wait()
}

// timer is one timer of a subchannel. It is guarded by subchannel.mu.
type timer struct {
	cancel func() // nil when it is not armed
	armed  int    // how often it was; tells a timer that fires from its successor

	late time.Duration // by how much it fired too late, the last time
}

// setLocked makes t run f, without s.mu, when d has passed, unless it is armed
// already.
func (s *subchannel) setLocked(t *timer, d time.Duration, f func()) {
	if t.cancel != nil {
		return
	}
	t.armed++
	nth, due := t.armed, time.Now().Add(d)
	t.cancel = s.policy.tasks.after(d, func() {
		s.mu.Lock()
		late := t.cancel == nil || t.armed != nth
		if !late {
			t.cancel, t.late = nil, time.Since(due)
		}
		s.mu.Unlock()
		if !late {
			f()
		}
	})
}

func (t *timer) stop() {
	if t.cancel != nil {
		t.cancel()
		t.cancel = nil
	}
}
