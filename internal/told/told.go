// Package told has what a pool, a factory and package scale tell each other about a channel
// that watches its own connections: by the context of a call, and by the words of an error,
// as gRPC keeps nothing else of the error of a call that was not sent.
package told

import (
	"context"
	"strings"
	"time"
)

type (
	proofKey struct{}
	lateKey  struct{}
	logKey   struct{}
)

// WithProof returns a context for a test of a channel. lastProof is the latest time at which
// the channel is known to have been alive.
func WithProof(ctx context.Context, lastProof func() time.Time) context.Context {
	return context.WithValue(ctx, proofKey{}, lastProof)
}

// Proof returns the func that WithProof was given, or nil.
func Proof(ctx context.Context) func() time.Time {
	lastProof, _ := ctx.Value(proofKey{}).(func() time.Time)
	return lastProof
}

// WithLate returns a context for making a channel. tell is called with the reason when it
// takes so long that callers who do not wait should be told, and the dial goes on.
func WithLate(ctx context.Context, tell func(error)) context.Context {
	return context.WithValue(ctx, lateKey{}, tell)
}

// TellLate calls the func that WithLate was given, if there is one.
func TellLate(ctx context.Context, err error) {
	if tell, ok := ctx.Value(lateKey{}).(func(error)); ok {
		tell(err)
	}
}

// Log says who makes or tests a channel, for the log.
type Log struct {
	Pool   string // its name; "": it has none
	Faults bool   // it logs what happens to the channel
}

// WithLog returns a context for making or testing a channel of a pool.
func WithLog(ctx context.Context, l Log) context.Context { return context.WithValue(ctx, logKey{}, l) }

// LogOf returns what WithLog was given. It is zero without a pool.
func LogOf(ctx context.Context) Log {
	l, _ := ctx.Value(logKey{}).(Log)
	return l
}

// Ejected is in the error of calls whose connection was ejected, and of those that waited
// for it.
const Ejected = "ejected: no answer to a probe"

// SaysEjected reports whether text is that of such an error.
func SaysEjected(text string) bool { return strings.Contains(text, Ejected) }
