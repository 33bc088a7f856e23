package tap_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

type readyReader interface {
	ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error)
}

// onePool is a pool of one buffer that counts who has it.
type onePool struct {
	buf []byte
	out int
}

func (p *onePool) Get(n int) *[]byte {
	p.out++
	p.buf = p.buf[:n]
	return &p.buf
}

func (p *onePool) Put(*[]byte) { p.out-- }

// sockets returns the two ends of a TCP connection over loopback.
func sockets(t testing.TB) (here, there *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

func TestASocketIsReadOnReadyWhereTheTransportWouldDoSo(t *testing.T) {
	here, _ := sockets(t)
	conn := tap.New(tap.Events{}).Wrap(here, nil)
	if _, ok := conn.(readyReader); ok != (runtime.GOOS == "linux") {
		t.Errorf("ReadOnReady offered: %v, on %s", ok, runtime.GOOS)
	}
	if _, ok := conn.(syscall.Conn); !ok {
		t.Error("SyscallConn is lost")
	}
}

func TestReadOnReadyTakesABufferOnlyWhenThereIsSomething(t *testing.T) {
	here, there := sockets(t)
	s := tap.New(tap.Events{})
	conn, ok := s.Wrap(here, nil).(readyReader)
	if !ok {
		t.Skipf("grpc-go does not read on ready on %s", runtime.GOOS)
	}
	pool := &onePool{buf: make([]byte, 1<<10)}

	there.Write([]byte("\x00\x00\x06\x04\x00")) // the beginning of SETTINGS
	b, n, err := conn.ReadOnReady(1<<10, pool)
	if err != nil || n != 5 {
		t.Fatalf("ReadOnReady = %d bytes, %v", n, err)
	}
	pool.Put(b)
	if s.LastHeard().IsZero() {
		t.Error("the bytes passed unheard")
	}

	here.SetReadDeadline(time.Now().Add(-time.Second))
	if b, n, err := conn.ReadOnReady(1<<10, pool); b != nil || n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past its deadline: %d bytes, %v", n, err)
	}
	here.SetReadDeadline(time.Time{})

	there.Close()
	if b, n, err := conn.ReadOnReady(1<<10, pool); b != nil || n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("closed by the peer: %d bytes, %v", n, err)
	}
	if err := s.Cause(); !errors.Is(err, io.EOF) {
		t.Errorf("Cause() = %v, want EOF", err)
	}
	if pool.out != 0 {
		t.Errorf("%d buffers not given back", pool.out)
	}
}

func TestReadOnReadyReportsAReset(t *testing.T) {
	here, there := sockets(t)
	s := tap.New(tap.Events{})
	conn, ok := s.Wrap(here, nil).(readyReader)
	if !ok {
		t.Skipf("grpc-go does not read on ready on %s", runtime.GOOS)
	}
	there.SetLinger(0)
	there.Close()
	pool := &onePool{buf: make([]byte, 1<<10)}
	if _, _, err := conn.ReadOnReady(1<<10, pool); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("ReadOnReady: %v, want a reset", err)
	}
	if err := s.Cause(); !errors.Is(err, syscall.ECONNRESET) || pool.out != 0 {
		t.Errorf("Cause() = %v, %d buffers out", err, pool.out)
	}
}

// alts stands for a connection that reads on ready by itself.
type alts struct {
	script

	read int
}

func (a *alts) ReadOnReady(_ int, pool mem.BufferPool) (*[]byte, int, error) {
	a.read++
	b := pool.Get(1)
	return b, 1, nil
}

func TestAConnectionsOwnReadOnReadyIsPassedThrough(t *testing.T) {
	var peer alts
	s := tap.New(tap.Events{})
	conn := s.Wrap(&peer, nil)
	ready, ok := conn.(readyReader)
	if !ok {
		t.Fatal("ReadOnReady is lost")
	}
	if _, n, err := ready.ReadOnReady(1, &onePool{buf: make([]byte, 1)}); n != 1 || err != nil || peer.read != 1 {
		t.Errorf("ReadOnReady = %d, %v after %d reads below", n, err, peer.read)
	}
	if s.LastHeard().IsZero() {
		t.Error("the bytes passed unheard")
	}
	if _, ok := conn.(syscall.Conn); ok {
		t.Error("SyscallConn is offered and nothing is behind it")
	}
}

func TestReadingThroughTheTapAllocatesNothing(t *testing.T) {
	here, there := sockets(t)
	conn := tap.New(tap.Events{}).Wrap(here, nil)
	there.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS
	conn.Read(make([]byte, 9))
	frame := append([]byte{0, 4, 0, 0, 0, 0, 0, 0, 3}, make([]byte, 1<<10)...)
	pool := &onePool{buf: make([]byte, 1<<12)}
	read := func() {
		for left := len(frame); left > 0; {
			n, err := conn.Read(pool.buf[:left])
			if err != nil {
				t.Fatal(err)
			}
			left -= n
		}
	}
	if got := testing.AllocsPerRun(100, func() { there.Write(frame); read() }); got != 0 {
		t.Errorf("Read: %v allocations", got)
	}
	ready, ok := conn.(readyReader)
	if !ok {
		return
	}
	readReady := func() {
		for left := len(frame); left > 0; {
			b, n, err := ready.ReadOnReady(left, pool)
			if err != nil {
				t.Fatal(err)
			}
			pool.Put(b)
			left -= n
		}
	}
	if got := testing.AllocsPerRun(100, func() { there.Write(frame); readReady() }); got != 0 {
		t.Errorf("ReadOnReady: %v allocations", got)
	}
}

// countingReady counts how often a socket is read on ready, and how otherwise.
type countingReady struct {
	net.Conn

	ready, other *atomic.Int64
}

func (c *countingReady) ReadOnReady(size int, pool mem.BufferPool) (*[]byte, int, error) {
	c.ready.Add(1)
	b := pool.Get(size)
	n, err := c.Conn.Read(*b)
	if n == 0 {
		pool.Put(b)
		return nil, 0, err
	}
	return b, n, err
}

func (c *countingReady) Read(b []byte) (int, error) {
	c.other.Add(1)
	return c.Conn.Read(b)
}

// readsOf makes an RPC on a new channel, and counts how its socket was read.
func readsOf(t *testing.T, addr net.Addr, opts ...grpc.DialOption) (ready, other int64) {
	t.Helper()
	var onReady, otherwise atomic.Int64
	cc := dial(t, addr, append(opts, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		return &countingReady{conn, &onReady, &otherwise}, err
	}))...)
	if _, err := healthpb.NewHealthClient(cc).Check(testContext(t), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	return onReady.Load(), otherwise.Load()
}

func TestTheTransportReadsOnReadyThroughTheTap(t *testing.T) {
	_, addr := serve(t, "tcp")
	if ready, _ := readsOf(t, addr, grpc.WithTransportCredentials(insecure.NewCredentials())); ready == 0 {
		t.Skip("this grpc-go, older than 1.81, does not read on ready")
	}
	ready, other := readsOf(t, addr, grpc.WithCredentialsBundle(tap.Bundle(insecure.NewCredentials(), nil, tap.New(tap.Events{}))))
	if ready == 0 || other != 0 {
		t.Errorf("%d reads on ready, %d others", ready, other)
	}
}
