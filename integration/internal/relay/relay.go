// Package relay is a TCP relay on loopback that counts its connections. Put in
// front of a server it tells how many a client has opened, whatever the server.
package relay

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// Relay forwards TCP connections to one backend. Its methods may be called
// concurrently.
type Relay struct {
	// Addr is where the relay listens, "127.0.0.1:port".
	Addr string

	backend  string
	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	open     map[net.Conn]struct{}
	accepted int
	closed   bool
}

// Start begins to relay to backend ("host:port"). When the test ends the relay
// closes every connection and waits for its goroutines.
func Start(tb testing.TB, backend string) *Relay {
	tb.Helper()
	ctx := tb.Context() // ends before stop is called
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("relay: listening: %v", err)
	}
	r := &Relay{
		Addr:     listener.Addr().String(),
		backend:  backend,
		listener: listener,
		open:     make(map[net.Conn]struct{}),
	}
	r.running.Go(func() { r.accept(ctx) })
	tb.Cleanup(r.stop)
	return r
}

// Accepted is how many connections clients have opened so far.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Open is how many of them are open now.
func (r *Relay) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

func (r *Relay) accept(ctx context.Context) {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return // stop has closed the listener
		}
		if !r.add(client) {
			_ = client.Close()
			return
		}
		r.running.Go(func() { r.serve(ctx, client) })
	}
}

// add counts a connection. Undone by remove.
func (r *Relay) add(client net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.accepted++
	r.open[client] = struct{}{}
	return true
}

func (r *Relay) remove(client net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, client)
}

// serve carries bytes both ways until both ends are done, or one is gone.
func (r *Relay) serve(ctx context.Context, client net.Conn) {
	defer r.remove(client)
	defer client.Close() //nolint:errcheck // nothing can be done about it
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.backend)
	if err != nil {
		return // the client sees its connection close, as with any proxy
	}
	defer server.Close() //nolint:errcheck // as above
	var up sync.WaitGroup
	up.Go(func() { pass(server, client) })
	pass(client, server)
	up.Wait()
}

// pass copies until from ends, and tells to. An error ends both directions.
func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close()
		_ = from.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other direction may have something to say yet
	}
}

func (r *Relay) stop() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for client := range r.open {
		_ = client.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
}
