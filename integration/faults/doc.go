// Package faults plays scenarios of network and process faults against the library
// and measures what becomes of them: how long until nothing is put on a connection
// that is dead, how long until calls go well again, and what failed in between.
//
// A scenario is a script, such as testdata/01-blackhole.txt. README.md says how to
// write one. Each is played by [Run] in a process of its own, in a network namespace
// of its own, with a cable to another namespace in which the server's process is:
// nothing of the machine's network is touched, and nothing can be left behind.
// [Soak] lets one random fault follow the other.
//
//	script.go        what a script declares; steps.go what it does
//	faultsteps.go    the faults in a script; expectations.go what it expects
//	engine.go        playing a script; inject.go its faults
//	inside.go        the process and the namespace that it is played in
//	client.go        what is tested: a channel, or a pool; and a plain channel
//	load.go          the calls, and what became of each
//	measure.go       detection, recovery, and what else can be expected; peak.go dials
//	beside.go        what is compared with a plain channel, and short restarts
//	net.go           faults of the network, by commands that wait: staged.go
//	proxy.go         faults of toxiproxy; process.go of servers, cgroup.go by the kernel
//	starve.go        faults of the client's own process
//	server.go        the server's process
//	soak.go          random faults
//	report.go        docs/faults.md
package faults
