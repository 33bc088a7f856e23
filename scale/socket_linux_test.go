package scale_test

import (
	"context"
	"net"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/scale"
)

// socketOptions are those that supervision sets.
type socketOptions struct{ keepIdle, keepInterval, keepCount, userTimeout int }

const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, which package syscall does not have

// The keepalives all fit into TCP_USER_TIMEOUT. If that were 6 s, one lost keepalive would
// end a quiet connection: where 5 % of the packets are lost, most of them within a minute.
//
// Without supervision the sockets of a channel are those of the dialler.
func TestSupervisionSetsSocketOptionsAndNothingElseDoes(t *testing.T) {
	s := startServer(t, serverConfig{})
	for name, tc := range map[string]struct {
		opts []grpc.DialOption
		want bool
	}{
		"by default":     {nil, true},
		"without probes": {[]grpc.DialOption{scale.WithProbeInterval(0)}, false},
		"unsupervised":   {[]grpc.DialOption{scale.WithUnsupervised()}, false},
	} {
		t.Run(name, func(t *testing.T) {
			conns := make(chan net.Conn, 1)
			dial := func(ctx context.Context, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err == nil {
					conns <- conn
				}
				return conn, err
			}
			before, err := dial(t.Context(), s.addr)
			if err != nil {
				t.Fatal(err)
			}
			want := optionsOf(t, <-conns)
			_ = before.Close()
			if tc.want {
				want = socketOptions{5, 1, 10, 15000}
			}
			c := newChannel(t, s.addr, append(tc.opts, grpc.WithContextDialer(dial))...)
			mustHammer(t, c.stub, 1, 1)
			if got := optionsOf(t, <-conns); got != want {
				t.Errorf("the options are %+v, want %+v", got, want)
			}
		})
	}
}

func optionsOf(t *testing.T, conn net.Conn) (o socketOptions) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		o.keepIdle, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		o.keepInterval, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL)
		o.keepCount, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
		o.userTimeout, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	}); err != nil {
		t.Fatal(err)
	}
	return o
}
