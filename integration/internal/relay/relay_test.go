package relay_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/davidwartell/go-grpcpool/integration/internal/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestARelayPassesBytesAndHalfClosesAndCounts(t *testing.T) {
	r := relay.Start(t, echo(t))
	sent := bytes.Repeat([]byte("grpc"), 100_000)
	for i := 1; i <= 3; i++ {
		c, err := net.Dial("tcp", r.Addr)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c.Write(sent)
			c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("got %d bytes and error %v, want the %d that were sent", len(got), err, len(sent))
		}
		c.Close()
		if n := r.Accepted(); n != i {
			t.Fatalf("the relay has counted %d connections, want %d", n, i)
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for r.Open() > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d connections are still open", r.Open())
		}
	}
}

func TestARelayWithoutABackendClosesTheConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nothing is listening there now
	r := relay.Start(t, l.Addr().String())
	c, err := net.Dial("tcp", r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes from a relay that has no backend", n)
	}
}
