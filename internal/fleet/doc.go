// Package fleet has no code of its own: its tests run fleets of clients against a server
// that is slow to begin connections, and measure how they come back after an outage.
//
// The clients are real channels, in the virtual time of testing/synctest. The network and
// the servers are in memory, and much simpler than real ones:
//
//   - A server begins one connection at a time and so many a second, in the order in which
//     they came. This stands for the CPU that TLS handshakes cost.
//   - It spends that time on a connection whose client has gone as well: the client's first
//     bytes are in the socket, and the server finds out only when it answers them. A client
//     that left before it sent anything costs nothing.
//   - So many connections may wait (the backlog). Beyond that packets are dropped, and TCP
//     asks again after 1, 3 and 7 seconds.
//   - A dial takes a millisecond, answers take no time.
//   - A client has one call that waits until there is a connection. Callers that do not
//     wait and call again every few milliseconds bring the same results, and cost more CPU.
//
// "go test ./internal/fleet" runs small fleets and checks what must always be true. "make
// fleet" runs large ones as well and writes docs/fleet.md. -fleet.seed chooses other
// outages, balancers' choices, callers' pauses and pauses between the clients' dials. The
// same seed brings about the same figures, not exactly the same ones: goroutines of one
// instant run in any order, and grpc-go's own jitter has no seed.
package fleet
