// Package ready reads sockets as grpc-go's transport would: a buffer is taken only once
// there is something to put into it, so that an idle connection pins none. Who puts
// something of its own between a socket and the transport keeps that up with it.
package ready

import "google.golang.org/grpc/mem"

// Reader is what grpc-go's transport looks for, structurally, on a connection that it
// is about to read from.
type Reader interface {
	// ReadOnReady waits until there is something to read, then takes a buffer of size
	// bytes from the pool and reads into it. The caller owns the buffer if there is
	// one, which is when n > 0. One goroutine at a time may call it.
	ReadOnReady(size int, pool mem.BufferPool) (buf *[]byte, n int, err error)
}
