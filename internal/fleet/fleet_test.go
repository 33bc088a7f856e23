package fleet_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
)

// ownTime is how long the server of a small fleet needs to begin all connections.
const ownTime = 10 * time.Second

// smallStorm is the storm of n clients on a server that needs ownTime for them. The backlog
// holds as many seconds of work as 4096, Linux's limit, does at 500 connections a second.
func smallStorm(t *testing.T, k kind, n int, outage time.Duration, m mode) *measure {
	return storm(t, k, n, float64(n)/ownTime.Seconds(), n*82/100, outage, m)
}

// The promises are those of 5,000 clients and 500 connections a second; "make fleet" shows
// those. A pool dials nothing that its channel does not dial.
func TestEveryClientComesBackAfterAnOutageAndNothingIsWasted(t *testing.T) {
	for _, k := range []kind{ours, pooled} {
		for outage, n := range map[time.Duration]int{0: smallFleet, time.Second: smallFleet, 30 * time.Second: smallFleet / 2} {
			m := smallStorm(t, k, n, outage, refuses)
			m.allBack(t, outage)
			m.dialsAreBounded(t, outage)
			if last, most := m.quantile(1), ownTime*11/10; last > most {
				t.Errorf("seed %d, %s, outage %v: the last client was back after %v, want %v at most", *seedFlag, k.name, outage, last, most)
			}
			if m.wasted() > 0 {
				t.Errorf("seed %d, %s, outage %v: the server worked on %d connections for nothing, want none", *seedFlag, k.name, outage, m.wasted())
			}
		}
	}
}

// More clients than the server's backlog holds, by far: 20,000 on 500 connections a second
// are to be back within 1.35 times the server's own time, and to waste less than 5 %.
func TestAFleetFarBeyondTheBacklogComesBack(t *testing.T) {
	const n, share = smallFleet, 4
	m := storm(t, ours, n, float64(n)/(share*ownTime.Seconds()), n*82/100/share, time.Second, refuses)
	m.allBack(t, time.Second)
	if last, most := m.quantile(1), share*ownTime*135/100; last > most {
		t.Errorf("seed %d: the last client was back after %v, want %v at most", *seedFlag, last, most)
	}
	if m.wasted() > n*5/100 {
		t.Errorf("seed %d: the server worked on %d connections for nothing, want %d at most", *seedFlag, m.wasted(), n*5/100)
	}
}

func TestPlainChannelsComeBackAndWasteNothing(t *testing.T) {
	for _, outage := range []time.Duration{0, time.Second, 30 * time.Second} {
		m := smallStorm(t, plain, smallFleet, outage, refuses)
		m.allBack(t, outage)
		if m.wasted() != 0 {
			t.Errorf("outage %v: the server worked on %d connections for nothing, want 0", outage, m.wasted())
		}
		if last, most := m.quantile(1), 3*ownTime; last > most {
			t.Errorf("outage %v: the last client was back after %v, want %v at most", outage, last, most)
		}
	}
}

// Without it nobody would know whether the simulation notices waste at all.
func TestAFleetThatGivesHandshakesUpWastesThem(t *testing.T) {
	hasty := plainWith("gives up after 2 s", grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 2 * time.Second}))
	m := smallStorm(t, hasty, smallFleet/2, 0, refuses)
	if m.wasted() < smallFleet/4 {
		t.Errorf("%d connections wasted, want %d at least", m.wasted(), smallFleet/4)
	}
	if m.spent < m.needed-m.missing {
		t.Errorf("%d connections begun for %d clients", m.spent, m.needed-m.missing)
	}
}

func TestAClientWhoseServerIsFastComesBackSoon(t *testing.T) {
	for _, k := range []kind{ours, pooled} {
		for outage, n := range map[time.Duration]int{50 * time.Millisecond: 20, time.Second: 20, 30 * time.Second: 3, 300 * time.Second: 1} {
			m := alone(t, k, n, outage, refuses)
			m.allBack(t, outage)
			m.dialsAreBounded(t, outage+outage/5)
			if last := m.quantile(1); last > 2*time.Second {
				t.Errorf("%s, outage %v: the last client was back after %v, want 2s at most", k.name, outage, last)
			}
		}
	}
}

// medians are the promises for a client whose server is fast.
var medians = map[time.Duration]time.Duration{
	50 * time.Millisecond:  60 * time.Millisecond,
	200 * time.Millisecond: 100 * time.Millisecond,
	time.Second:            300 * time.Millisecond,
	30 * time.Second:       600 * time.Millisecond,
}

// No fixed backoff of grpc-go's is as quick after all outages with as few dials. One that
// is as quick after short ones dials far more often in long ones, and one that dials as
// seldom in long ones is slower after short ones.
func TestNoFixedBackoffIsAsQuickWithAsFewDials(t *testing.T) {
	const n = 20
	measured := make(map[time.Duration]*measure)
	for outage, most := range medians {
		m := alone(t, ours, n, outage, refuses)
		measured[outage] = m
		if median := m.quantile(.5); median > most {
			t.Errorf("seed %d, outage %v: the median client was back after %v, want %v at most", *seedFlag, outage, median, most)
		}
	}
	equal := sameDials(measured[30*time.Second], 30*time.Second)
	for _, d := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, equal, time.Second} {
		beats := true
		for outage, m := range measured {
			fixed := alone(t, fixedBackoff(d), n, outage, refuses)
			beats = beats && fixed.quantile(.5) <= m.quantile(.5) && fixed.meanDials() <= m.meanDials()
			if !beats {
				break
			}
		}
		if beats {
			t.Errorf("seed %d: a fixed backoff of %v is as quick, with as few dials", *seedFlag, d)
		}
	}
}

func TestAFleetComesBackFromBehindABalancerThatAccepts(t *testing.T) {
	const outage = 10 * time.Second
	for _, behind := range []mode{cuts, mutes} {
		m := smallStorm(t, ours, smallFleet/2, outage, behind)
		m.allBack(t, outage)
		m.dialsAreBounded(t, outage)
	}
}

func TestClientsComeBackToANetworkThatWasAway(t *testing.T) {
	const outage = 10 * time.Second
	for _, k := range []kind{ours, pooled, keptAlive} {
		m := alone(t, k, 20, outage, dark)
		m.allBack(t, outage)
		m.dialsAreBounded(t, outage)
	}
}

func TestARollingRestartSpreadsItsDials(t *testing.T) {
	const servers = 5
	for _, k := range []kind{ours, plain} {
		m := rolling(t, k, smallFleet, servers, 10)
		m.allBack(t, 0)
		if len(m.back) < smallFleet {
			t.Errorf("%s: %d clients lost a connection, want all %d", k.name, len(m.back), smallFleet)
		}
		if share := m.needed / servers; m.busiest > 2*share {
			t.Errorf("seed %d, %s: one server was dialled %d times, want %d at most, twice its share", *seedFlag, k.name, m.busiest, 2*share)
		}
	}
}

func (m *measure) allBack(t *testing.T, outage time.Duration) {
	t.Helper()
	if m.missing > 0 {
		t.Errorf("%s, outage %v: %d of %d clients were not back after %v", m.kind, outage, m.missing, m.clients, patient)
	}
	if len(m.back) > 0 && m.back[0] < 0 {
		t.Errorf("%s, outage %v: a call succeeded %v before the server's return", m.kind, outage, -m.back[0])
	}
}

// dialsAreBounded fails the test if a client dialled more often than a short burst and then
// twice a second.
func (m *measure) dialsAreBounded(t *testing.T, outage time.Duration) {
	t.Helper()
	const burst = 15
	most := burst + int((outage+m.quantile(1))/(500*time.Millisecond))
	if got := m.mostDials(); got > most {
		t.Errorf("%s, outage %v: a client dialled %d times, want %d at most", m.kind, outage, got, most)
	}
	if m.dials[0] < 1 {
		t.Errorf("%s, outage %v: a client came back without a dial", m.kind, outage)
	}
}
