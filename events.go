package grpcpool

import (
	"context"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/scale"
)

// Event is something that happened to a connection inside a channel, or to the
// calls that wait for one.
type Event = scale.Event

// EventKind says what happened; package scale lists the kinds.
type EventKind = scale.EventKind

type eventsKey struct{}

// ContextWithEvents returns a context that has an Inspector tell f every event of
// the channel that it makes with it, for as long as the channel lives: those of
// the dial, also if it fails, and the last before the channel's Close returns. f
// is called one event at a time, in order, under no lock; it must not block and
// must not close the channel. It is for pools.
func ContextWithEvents(ctx context.Context, f func(Event)) context.Context {
	return context.WithValue(ctx, eventsKey{}, f)
}

// EventsFromContext returns what ContextWithEvents was given, or nil. It is for
// implementations of Inspector; those that embed a Factory need it not.
func EventsFromContext(ctx context.Context) func(Event) {
	f, _ := ctx.Value(eventsKey{}).(func(Event))
	return f
}

// eventOptions has a channel made with ctx tell its events.
func eventOptions(ctx context.Context) []grpc.DialOption {
	if f := EventsFromContext(ctx); f != nil {
		return []grpc.DialOption{scale.WithEvents(f)}
	}
	return nil
}

// Target is the address that the factory was made with.
func (f *Factory) Target() string { return f.target }
