package grpcpool

import (
	"context"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/scale"
)

type eventsKey struct{}

// ContextWithEvents returns a context for NewInspectedConnection of an
// InspectableFactory. The channel that is made with it calls f for each of its
// events, from the first dial until its Close returns; a dial that fails is reported
// too. f is called for one event at a time, in order, with no lock held. It must not
// block, and must not close the channel. A nil f is the same as no func.
//
// Pools call this function. Otherwise it is only for those who write a
// ConnectionFactory.
func ContextWithEvents(ctx context.Context, f func(scale.Event)) context.Context {
	return context.WithValue(ctx, eventsKey{}, f)
}

// EventsFromContext returns the func that ContextWithEvents was given, or nil. It is
// only for those who write a ConnectionFactory: an InspectableFactory that does not
// embed a *Factory passes the func to scale.WithEvents.
func EventsFromContext(ctx context.Context) func(scale.Event) {
	f, _ := ctx.Value(eventsKey{}).(func(scale.Event))
	return f
}

// eventOptions makes a channel report its events to the func in ctx, if there is one.
func eventOptions(ctx context.Context) []grpc.DialOption {
	if f := EventsFromContext(ctx); f != nil {
		return []grpc.DialOption{scale.WithEvents(f)}
	}
	return nil
}

// Target returns the address that the factory was made with.
func (f *Factory) Target() string {
	if !f.made() {
		return ""
	}
	return f.target
}
