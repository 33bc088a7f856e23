package ready

import (
	"errors"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// New returns how to read nc on ready: its own way if it has one (as
// ALTS does), the socket's if nc is a socket and nothing else, nil if neither.
//
// The types are named because SyscallConn alone proves nothing: what grpc-go's
// TLS credentials return has it too, and reading that file descriptor would
// yield ciphertext.
func New(nc net.Conn) Reader {
	var sys syscall.Conn
	switch c := nc.(type) {
	case Reader:
		return c
	case *net.TCPConn:
		sys = c
	case *net.UnixConn:
		sys = c
	default:
		return nil
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return nil // closed already; Read will say so
	}
	s := &socketReader{raw: raw}
	s.tryRead = s.try
	return s
}

// socketReader reads a socket on ready. One goroutine at a time may use it.
type socketReader struct {
	raw     syscall.RawConn
	tryRead func(fd uintptr) (done bool) // s.try, made once so that a read allocates nothing

	// The arguments and results of the read under way.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

// ReadOnReady waits until the socket has something to say, then takes a buffer
// of size bytes from the pool and reads into it. The caller owns the buffer if
// there is one, which is when n > 0.
func (s *socketReader) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	s.size, s.pool = size, pool
	waitErr := s.raw.Read(s.tryRead)
	buf, n, err := s.buf, s.n, s.err
	s.pool, s.buf, s.n, s.err = nil, nil, 0, nil
	if waitErr != nil {
		err = waitErr // closed, or past its deadline, before there was anything
	}
	if err == nil && n == 0 {
		err = io.EOF // read(2) has no error for it
	}
	if err != nil {
		if buf != nil {
			pool.Put(buf)
		}
		return nil, 0, err
	}
	return buf, n, nil
}

// try reads once. It is called whenever the socket may be readable, and returns
// false to be called again.
func (s *socketReader) try(fd uintptr) bool {
	s.buf = s.pool.Get(s.size)
	for {
		s.n, s.err = syscall.Read(int(fd), *s.buf)
		if !errors.Is(s.err, syscall.EINTR) {
			break
		}
	}
	if s.err == nil {
		return true
	}
	s.pool.Put(s.buf)
	s.buf, s.n = nil, 0
	return !errors.Is(s.err, syscall.EAGAIN)
}
