// Package pause decides how long a client waits after a failed dial before the next one,
// for package scale and package shared alike:
//
//	next := time.Now().Add(pause.Refused(time.Since(downSince)))
//
// A refused dial costs the server nothing, so the next one follows soon, and the end of a
// short outage is seen at once. A handshake costs the server a millisecond or more of CPU:
// after one that failed clients stay away longer each time.
package pause

import (
	"time"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
)

const (
	least        = 50 * time.Millisecond
	mostAtFirst  = time.Second
	mostLater    = 5 * time.Second // after longOutage
	longOutage   = time.Minute
	costlyFirst  = 100 * time.Millisecond
	costlyMost   = 10 * time.Second
	mostDoubling = 7
)

// Refused returns the pause after a dial that did not reach the server, when there has been
// no connection for the given time: between a half and the whole of half that time, and at
// least 25 ms. In the first minute it is at most one second, later at most five.
func Refused(outage time.Duration) time.Duration {
	most := mostAtFirst
	if outage >= longOutage {
		most = mostLater
	}
	d := min(max(outage/2, least), most)
	return jitter.Between(d/2, d)
}

// Costly returns the pause after the nth failure in a row, from 1, that reached the server:
// a random part of a time that doubles from 100 ms to 10 s ("full jitter").
func Costly(n int) time.Duration {
	return jitter.UpTo(min(costlyFirst<<min(max(n-1, 0), mostDoubling), costlyMost))
}
