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
	most         = 900 * time.Millisecond // and a tenth of a second for the next caller to come
	costlyFirst  = 100 * time.Millisecond
	costlySecond = 750 * time.Millisecond
	costlyMost   = 10 * time.Second
	mostDoubling = 4
)

// Refused returns the pause after a dial that did not reach the server, when there has been
// no connection for the given time: between a half and the whole of half that time, at
// least 25 ms and at most 0.9 s, so that the end of any outage is seen within a second.
func Refused(outage time.Duration) time.Duration {
	d := min(max(outage/2, least), most)
	return jitter.Between(d/2, d)
}

// Costly returns the pause after the nth failure in a row, from 1, that reached the server:
// between two thirds and the whole of 100 ms after the first, and then of a time that
// doubles from 750 ms to 10 s. So a server that fails twice, as in a restart that was
// repeated, is dialled again soon. One that ends every connection at once is dialled five
// times in three seconds at most, even if the second dial follows the first without a
// pause; this is why there is no more jitter.
func Costly(n int) time.Duration {
	d := costlyFirst
	if n > 1 {
		d = min(costlySecond<<min(n-2, mostDoubling), costlyMost)
	}
	return jitter.Between(d*2/3, d)
}
