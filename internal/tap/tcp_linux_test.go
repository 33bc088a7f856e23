package tap_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not have.
const tcpUserTimeout = 18

// The timeout is set on the socket itself, below TLS and the tap, and does not
// lengthen one that is there.
func TestTheUserTimeoutReachesTheSocket(t *testing.T) {
	for name, tc := range map[string]struct{ before, want time.Duration }{
		"none before": {0, 5 * time.Second},
		"a longer":    {time.Minute, 5 * time.Second},
		"a shorter":   {time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			here, _ := sockets(t)
			raw, err := here.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			control := func(do func(fd int) error) {
				t.Helper()
				var failed error
				if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil || failed != nil {
					t.Fatal(err, failed)
				}
			}
			if tc.before > 0 {
				control(func(fd int) error {
					return syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, tcpUserTimeout, int(tc.before.Milliseconds()))
				})
			}
			s := tap.New(tap.Events{}).WithUserTimeout(5 * time.Second)
			creds := tap.Credentials(insecure.NewCredentials(), s)
			if _, _, err := creds.ClientHandshake(t.Context(), "localhost", here); err != nil {
				t.Fatal(err)
			}
			control(func(fd int) error {
				ms, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, tcpUserTimeout)
				if got := time.Duration(ms) * time.Millisecond; got != tc.want {
					t.Errorf("the timeout is %v, want %v", got, tc.want)
				}
				return err
			})
		})
	}
}

func TestWhatThisProcessHasNotReadIsKnown(t *testing.T) {
	here, there := sockets(t)
	s := tap.New(tap.Events{})
	if _, told := s.Unread(); told {
		t.Error("told without a connection")
	}
	creds := tap.Credentials(insecure.NewCredentials(), s)
	conn, _, err := creds.ClientHandshake(t.Context(), "localhost", here)
	if err != nil {
		t.Fatal(err)
	}
	if n, told := s.Unread(); n != 0 || !told {
		t.Errorf("%d bytes unread, told %v, of a peer that has said nothing", n, told)
	}
	settings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	if _, err := there.Write(settings); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for n := 0; n != len(settings); n, _ = s.Unread() {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes unread, want %d", n, len(settings))
		}
	}
	if _, err := conn.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if n, told := s.Unread(); n != 0 || !told {
		t.Errorf("%d bytes unread, told %v, once they are read", n, told)
	}
}

// The kernel's own tests of a connection are set on the socket too, and do not take the
// place of those that begin sooner.
func TestTheKeepaliveReachesTheSocket(t *testing.T) {
	type keepalive struct{ on, idle, interval, count int }
	ours := tap.KeepAlive{Idle: 5 * time.Second, Interval: time.Second, Count: 3}
	none, long, short := net.KeepAliveConfig{}, net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9},
		net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: 4 * time.Second, Count: 5}
	for name, tc := range map[string]struct {
		before net.KeepAliveConfig
		set    tap.KeepAlive
		want   keepalive
	}{
		"none before":   {none, ours, keepalive{1, 5, 1, 3}},
		"a longer":      {long, ours, keepalive{1, 5, 1, 3}},
		"a shorter":     {short, ours, keepalive{1, 2, 4, 5}},
		"not asked for": {long, tap.KeepAlive{}, keepalive{1, 15, 15, 9}},
	} {
		t.Run(name, func(t *testing.T) {
			here, _ := sockets(t)
			if err := here.SetKeepAliveConfig(tc.before); err != nil {
				t.Fatal(err)
			}
			creds := tap.Credentials(insecure.NewCredentials(), tap.New(tap.Events{}).WithKeepAlive(tc.set))
			if _, _, err := creds.ClientHandshake(t.Context(), "localhost", here); err != nil {
				t.Fatal(err)
			}
			raw, err := here.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var got keepalive
			err = raw.Control(func(fd uintptr) {
				got.on, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
				got.idle, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
				got.interval, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
				got.count, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
			})
			if err != nil || got != tc.want {
				t.Errorf("the keepalive is %+v, want %+v (%v)", got, tc.want, err)
			}
		})
	}
}
