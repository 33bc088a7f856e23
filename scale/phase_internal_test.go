package scale

import (
	"fmt"
)

// Every test of this package, also the black-box ones, runs with the table of moves
// enforced.
func init() {
	moveHook = func(c *connection, to phase, allowed bool) {
		if !allowed {
			panic(fmt.Sprintf("connection %d moves from %v to %v", c.id, c.phase, to))
		}
		if st, ok := c.sub.policy.cc.(*stage); ok {
			st.moved[move{c.phase, to}]++
		}
	}
}

// move is a row of the table.
type move struct{ from, to phase }
