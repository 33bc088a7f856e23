// Package ready reads sockets as grpc-go's transport does on Linux: it takes a buffer only
// when there is something to read, so that an idle connection holds none. It is for a
// net.Conn that wraps another, such as a tap, and would otherwise hide that ability:
//
//	reader := ready.New(conn)
//	if reader == nil {
//		return conn.Read(p) // conn cannot be read in that way
//	}
//	buf, n, err := reader.ReadOnReady(32<<10, pool)
//	if err != nil {
//		return 0, err
//	}
//	defer pool.Put(buf) // (*buf)[:n] has the bytes
package ready

import "google.golang.org/grpc/mem"

// Reader is the method set that grpc-go's transport looks for on a connection.
type Reader interface {
	// ReadOnReady waits until there is something to read, takes a buffer of size bytes
	// from pool and reads into it. If n > 0 the caller owns buf and puts it back into
	// pool; otherwise there is no buffer. One goroutine at a time may call it.
	ReadOnReady(size int, pool mem.BufferPool) (buf *[]byte, n int, err error)
}
