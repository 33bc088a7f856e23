// Package poolz is a live page of a program's pools: what state they are in, who
// holds leases, each connection with its streams, its certificate and its probes,
// and what happened last.
//
//	mux.Handle("/debug/poolz", poolz.Handler([]poolz.Pool{orders, users}))
//
// The page is HTML without external resources. It updates itself every second,
// with scripts every five without, and is readable on a phone. ?format=json has
// the same data for programs.
//
// # Who may see it
//
// The page names servers, their certificates and functions of the program, so it
// answers to this machine alone: the request must come from a loopback address,
// its Host must be one too (a page of another site whose name has been pointed at
// 127.0.0.1 has its own), and it must not carry a reverse proxy's headers, behind
// which anybody may be. WithAccess decides otherwise.
//
// Text of peers (error messages, debug data of GOAWAY, names in certificates) is
// escaped, and a Content-Security-Policy with a nonce keeps whatever would slip
// through from running.
//
// Seeing costs little: requests within a tenth of a second share one look at the
// pools.
package poolz
