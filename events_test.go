package grpcpool_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// heard are the kinds of the events that a hook was told.
type heard struct {
	mu    sync.Mutex // guards kinds
	kinds []scale.EventKind
}

func (h *heard) note(e scale.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kinds = append(h.kinds, e.Kind)
}

func (h *heard) all() []scale.EventKind {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.kinds)
}

func TestAContextsHookIsToldOfTheChannelThatIsMadeWithIt(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	f, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Target(); got != server.Addr() {
		t.Errorf("the target is %q, want %q", got, server.Addr())
	}
	var one, other heard
	conn, _, err := f.NewInspectedConnection(grpcpool.ContextWithEvents(t.Context(), one.note))
	if err != nil {
		t.Fatal(err)
	}
	another, _, err := f.NewInspectedConnection(grpcpool.ContextWithEvents(t.Context(), other.note))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	another.Close() // by then all is told
	for name, h := range map[string]*heard{"first": &one, "second": &other} {
		if got := h.all(); !slices.Equal(got, []scale.EventKind{scale.EventDialled}) {
			t.Errorf("the %s hook was told %q", name, got)
		}
	}
}

func TestAContextsHookIsToldOfADialThatFails(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	f, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	server.Stop()
	var h heard
	if _, _, err := f.NewInspectedConnection(grpcpool.ContextWithEvents(t.Context(), h.note)); err == nil {
		t.Fatal("there is a channel to a server that is not there")
	}
	if got := h.all(); len(got) == 0 || got[0] != scale.EventDialFailed {
		t.Errorf("the hook was told %q", got)
	}
}

func TestAContextWithoutAHookHasNone(t *testing.T) {
	if grpcpool.EventsFromContext(context.Background()) != nil {
		t.Error("a bare context has a hook")
	}
}
