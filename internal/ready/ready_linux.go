package ready

import (
	"errors"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// New returns a Reader of nc: nc itself if it is one, as with ALTS; a reader of the socket
// if nc is a TCP or Unix socket; otherwise nil.
//
// It accepts only these two types of socket, because SyscallConn alone proves nothing: the
// connections of grpc-go's TLS credentials have it too, and what is read from their file
// descriptor is ciphertext.
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
		return nil // closed already; Read returns the error
	}
	s := &socketReader{raw: raw}
	s.tryRead = s.try
	return s
}

// socketReader is the Reader of a socket. One goroutine at a time may use it.
type socketReader struct {
	raw     syscall.RawConn
	tryRead func(fd uintptr) (done bool) // s.try, made once so that a read allocates nothing

	// The arguments and results of the current read.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

// ReadOnReady implements Reader.
func (s *socketReader) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	s.size, s.pool = size, pool
	waitErr := s.raw.Read(s.tryRead)
	buf, n, err := s.buf, s.n, s.err
	s.pool, s.buf, s.n, s.err = nil, nil, 0, nil
	if waitErr != nil {
		err = waitErr // closed, or past its deadline, before anything came
	}
	if err == nil && n == 0 {
		err = io.EOF // for which read(2) has no error
	}
	if err != nil {
		if buf != nil {
			pool.Put(buf)
		}
		return nil, 0, err
	}
	return buf, n, nil
}

// try reads once. It is called when the socket may be readable; if it returns false it is
// called again later.
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
