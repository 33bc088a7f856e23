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

// run runs f on a goroutine of its own. It is false if wait was called before, and then
// f does not run.
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

// after runs f when d has passed. Before that, stop keeps it from running; the
// caller must call stop before wait.
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

// timer is one timer of a subchannel. What it runs never runs twice at a time. It is
// guarded by subchannel.mu.
type timer struct {
	cancel  func() // nil when it is not armed
	armed   int    // how often it was; tells a timer that fires from its successor
	running bool
	rearm   func() // arms it when what runs has returned; nil: it is not to be

	late time.Duration // by how much it fired too late, the last time
}

// armLocked makes t run f, without s.mu, when d has passed, unless it is armed
// already. While f runs, d counts from its return.
func (s *subchannel) armLocked(t *timer, d time.Duration, f func()) {
	if s.closed || t.cancel != nil || t.rearm != nil {
		return
	}
	if t.running {
		t.rearm = func() { s.armLocked(t, d, f) }
		return
	}
	t.armed++
	nth, due := t.armed, time.Now().Add(d)
	t.cancel = s.policy.tasks.after(d, func() { s.fire(t, nth, due, f) })
}

// fire runs f, which was due then, unless t was stopped in the last moment.
func (s *subchannel) fire(t *timer, nth int, due time.Time, f func()) {
	begun := false
	s.update(func(*effects) {
		if begun = t.cancel != nil && t.armed == nth; begun {
			t.cancel, t.running, t.late = nil, true, time.Since(due)
		}
	})
	if !begun {
		return
	}
	f()
	s.update(func(*effects) {
		rearm := t.rearm
		t.running, t.rearm = false, nil
		if rearm != nil {
			rearm()
		}
	})
}

// stop keeps t from running. What runs already runs on.
func (t *timer) stop() {
	t.rearm = nil
	if t.cancel != nil {
		t.cancel()
		t.cancel = nil
	}
}
