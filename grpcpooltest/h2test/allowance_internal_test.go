package h2test

import "testing"

func TestARaiseCountsAtOnceAndALoweringFromItsAcknowledgement(t *testing.T) {
	a := newAllowance()
	check := func(after string, want uint32) {
		t.Helper()
		if got := a.now(); got != want {
			t.Errorf("after %s: %d streams allowed, want %d", after, got, want)
		}
	}
	check("nothing", none)
	a.send(5)
	check("sending 5", none)
	a.ack()
	check("its acknowledgement", 5)
	a.send(20)
	check("sending 20", 20)
	a.ack()
	check("its acknowledgement", 20)
	a.send(2)
	check("sending 2", 20)
	a.send(8)
	check("sending 8 at its heels", 20)
	a.ack()
	check("the acknowledgement of 2", 8)
	a.ack()
	check("the acknowledgement of 8", 8)
	a.send(0)
	a.ack()
	check("the acknowledgement of 0", 0)
	if a.ack() {
		t.Error("an acknowledgement of nothing is taken for one")
	}
}
