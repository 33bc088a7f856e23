package logline

import (
	"strings"

	"github.com/davidwartell/go-grpcpool/internal/event"
	"github.com/davidwartell/go-grpcpool/internal/reason"
	"github.com/davidwartell/go-grpcpool/internal/told"
)

// line is how events of a kind read in the log.
type line struct {
	message string
	life    bool // Took is an age
	topic   topic
	hint    string // what to do; "" for details
}

// topic says when an event has a line at Warn.
type topic int

const (
	details topic = iota // never
	ending               // held until it is known whether an outage begins
	outage               // it is the beginning or the end of one
	waiting              // as ending, and then as lasting
	lasting              // at once, and seldom again while it lasts
)

const hintReach = "check that the server is running, and that this host can reach it"

// lines are the kinds that are logged.
var lines = map[event.Kind]line{
	event.Opened:         {message: "dialled"},
	event.OpenFailed:     {message: "dial failed"},
	event.Tested:         {message: "tested"},
	event.TestFailed:     {message: "test failed"},
	event.Retired:        {message: "replaced the channel", life: true},
	event.ClosedIdle:     {message: "closed the idle channel", life: true},
	event.ClosedRetired:  {message: "closed the channel that was replaced", life: true},
	event.ClosedShutdown: {message: "closed the channel", life: true},
	event.Shutdown:       {message: "the pool is closed"},
	event.Dialled:        {message: "connection dialled"},
	event.DialFailed:     {message: "connection failed"},
	event.Grew:           {message: "dialling further connections"},
	event.Shrank:         {message: "closed a connection that was not needed", life: true},
	event.Replaced:       {message: "replaced a connection", life: true},

	event.Failing:   {message: "no connection", topic: outage, hint: hintReach},
	event.Recovered: {message: "connected again", topic: outage},
	event.Lost: {
		message: "lost a connection", life: true, topic: ending,
		hint: "if the server was not restarted, check its log, and the network, for that time",
	},
	event.Ejected: {
		message: "closed a connection that did not answer", life: true, topic: ending,
		hint: "check whether the server was paused or overloaded, and the network on the way to it",
	},
	event.WaitedTooLong: {message: "a caller waited too long for a connection", topic: waiting, hint: hintReach + "; or give callers more time"},
	event.Starved: {
		message: "a call ended before it had a stream", topic: waiting, hint: hintReach,
	},

	event.Leaked: {
		message: "a lease has not been returned", life: true, topic: lasting,
		hint: "call Return on every lease, in a defer; " + BorrowedBy + " shows the Get",
	},
	event.Stuck: {
		message: "a call of the factory did not return when its context ended", topic: lasting,
		hint: "make the factory and its PingFunc return when their context ends",
	},
}

const stillFailing = "still no connection"

// hintStreams is what to do if calls wait for streams and not for a connection.
const hintStreams = "raise the server's limit on concurrent streams, or scale.WithMaxConnections; or make fewer calls at once"

// of returns what to log of e: its line, the error, and what to do about it.
func of(e event.Event) (l line, text, hint string) {
	l, text = lines[e.Kind], e.Text
	hint = l.hint
	switch e.Kind {
	case event.Failing:
		text, hint = reason.Advise(text)
		switch {
		case hint != "":
		case told.SaysEjected(text):
			hint = lines[event.Ejected].hint
		default:
			hint = l.hint
		}
	case event.Recovered:
		text, _ = reason.Advise(strings.TrimPrefix(text, "last error: "))
	case event.Starved:
		if strings.Contains(text, "streams are taken") || strings.Contains(text, "allows none") {
			hint = hintStreams
		}
	case event.Leaked:
		text = "" // it is the first line of the stack
	default:
	}
	return l, clean(text), hint
}

// needed reports whether an event of kind k may change what is logged at Warn or Info.
func needed(k event.Kind) bool {
	switch k {
	case event.OpenFailed, event.TestFailed, event.DialFailed, event.Dialled, event.Shrank, event.Replaced,
		event.ClosedIdle, event.ClosedRetired, event.ClosedShutdown, event.Shutdown:
		return true
	default:
		return lines[k].topic != details
	}
}
