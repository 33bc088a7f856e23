// Package poolz serves a live web page about a program's pools, for operators: the state
// of each pool, who holds leases, each connection with its streams, its certificate and
// its probes, and the latest events. It is one line beside a program's other debugging
// pages:
//
//	orders := shared.New(factory, 5*time.Minute, shared.WithName("orders"),
//		shared.WithLeakDetection(time.Minute)) // so that the page can list lease holders
//	defer orders.Close()
//
//	mux := http.NewServeMux()
//	mux.Handle("/debug/poolz", poolz.Handler([]poolz.Pool{orders}))
//	go func() { log.Print(http.ListenAndServe("localhost:6060", mux)) }()
//
// Then open http://localhost:6060/debug/poolz in a browser. The page loads nothing from
// elsewhere. It updates itself every second, or every five seconds in a browser without
// scripts, and fits on a phone. For programs, ?format=json has the same data.
//
// The calls made on the pool itself are counted by their status code. What a program calls on
// a lease of Get is not among them.
//
// # Who may see the page
//
// The page shows names of servers, certificates and functions of the program. So by
// default it answers this machine only. A request is refused if
//
//   - it does not come from a loopback address,
//   - its Host is not a loopback name or address, as when another site's name points to
//     127.0.0.1 (DNS rebinding), or
//   - it has the headers of a reverse proxy, as its sender could be anybody then.
//
// Use [WithAccess] to decide in another way.
//
// Text from peers (error messages, debug data of GOAWAY frames, names in certificates) is
// escaped. A Content-Security-Policy with a nonce keeps any script but the page's own from
// running.
//
// # Cost
//
// Requests that come within 100 ms of each other share one reading of the pools. Without
// requests the page costs nothing.
package poolz
