package scale_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/scale"
)

// roleVariable has the test binary play a part in a test of another process.
const roleVariable = "GRPCPOOL_SCALE_TEST_ROLE"

// playRole is what that process does until its standard input ends.
func playRole(role string) {
	switch addr, isClient := strings.CutPrefix(role, "client of "); {
	case isClient:
		playClient(addr)
	case role == "server":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		s := h2test.Start(l, h2test.WithDelay(20*time.Millisecond))
		fmt.Println(s.Addr())
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.Close()
	default:
		panic("no such role: " + role)
	}
}

// playClient holds a stream, and says when it stands. When it reads a line it says
// what has become of the channel.
func playClient(addr string) {
	observer := new(scale.Observer)
	cc, err := scale.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), scale.WithObserver(observer),
		scale.WithProbeInterval(100*time.Millisecond), scale.WithProbeTimeout(100*time.Millisecond))
	if err != nil {
		panic(err)
	}
	defer cc.Close()
	stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(context.Background())
	if err != nil {
		panic(err)
	}
	probes := func() uint64 { return observer.Snapshot().Subchannels[0].Probes }
	moreProbes := func(n uint64) {
		for before := probes(); probes() < before+n; {
			time.Sleep(time.Millisecond)
		}
	}
	moreProbes(2)
	fmt.Println("the stream stands")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	moreProbes(3)
	sub := observer.Snapshot().Subchannels[0]
	fmt.Println("ejected", sub.Ejected, "opened", sub.Opened, "lost", sub.Lost, "stream", stream.Context().Err())
}

// process is the test binary in a role.
type process struct {
	*os.Process

	in  io.WriteCloser
	out *bufio.Scanner
}

func startProcess(t *testing.T, role string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &process{cmd.Process, in, bufio.NewScanner(out)}
}

// line is what the process says next.
func (p *process) line(t *testing.T) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the process has ended: %v", p.out.Err())
	}
	return p.out.Text()
}

// compute has n goroutines compute until stop, which leaves little time to others.
func compute(n int) (stop func()) {
	var stopped atomic.Bool
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			for x := uint64(i); !stopped.Load(); {
				for range 1 << 20 {
					x = x*6364136223846793005 + 1442695040888963407
				}
				computed.Store(x)
			}
		})
	}
	return func() {
		stopped.Store(true)
		running.Wait()
	}
}

var computed atomic.Uint64

// A process that is short of CPU hears everything late, whatever the server is like.
func TestAClientThatIsShortOfCPUEjectsNobody(t *testing.T) {
	addr := startProcess(t, "server").line(t)
	var bad, dialFailed atomic.Int64
	plain, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	// Shorter than the defaults, so that a short test sees what a long one would.
	ours := newChannel(t, addr, scale.WithProbeInterval(200*time.Millisecond), scale.WithProbeTimeout(200*time.Millisecond), scale.WithEvents(func(e scale.Event) {
		if e.Kind == scale.EventDialFailed {
			dialFailed.Add(1)
		}
	}))
	stop := compute(30 * runtime.GOMAXPROCS(0))
	ctx := testContext(t)
	end := time.Now().Add(2500 * time.Millisecond)
	var calls sync.WaitGroup
	for _, cc := range []*grpc.ClientConn{plain, ours.ClientConn} {
		stub := testpb.NewTestServiceClient(cc)
		for range 10 {
			calls.Go(func() {
				for time.Now().Before(end) {
					if _, err := stub.EmptyCall(ctx, &testpb.Empty{}); err != nil {
						bad.Add(1)
						t.Log(cc == plain, err)
					}
				}
			})
		}
	}
	calls.Wait()
	stop()
	sub := ours.observer.Snapshot().Subchannels[0]
	if bad.Load() != 0 || dialFailed.Load() != 0 || sub.Ejected != 0 {
		t.Errorf("%d calls and %d dials failed: %+v", bad.Load(), dialFailed.Load(), sub)
	}
}

// A dead server is found out nevertheless.
func TestAClientThatIsShortOfCPUEjectsTheDead(t *testing.T) {
	server := startProcess(t, "server")
	ejected := make(chan struct{}, 100)
	c := newChannel(t, server.line(t), scale.WithProbeInterval(100*time.Millisecond), scale.WithProbeTimeout(100*time.Millisecond), scale.WithEvents(func(e scale.Event) {
		if e.Kind == scale.EventEjected {
			ejected <- struct{}{}
		}
	}))
	mustHammer(t, c.stub, 1, 1)
	defer compute(5 * runtime.GOMAXPROCS(0))()
	suspend(t, server)
	select {
	case <-ejected:
	case <-testContext(t).Done():
		t.Errorf("never ejected: %+v", c.observer.Snapshot())
	}
}

// A process that is stopped for a while, as a laptop or a virtual machine may be, finds
// its timers over when it goes on, and has heard nothing meanwhile.
func TestAStreamOutlivesAStopOfItsOwnProcess(t *testing.T) {
	s := startStrict(t)
	client := startProcess(t, "client of "+s.Addr().String())
	if got := client.line(t); got != "the stream stands" {
		t.Fatal(got)
	}
	for range 3 {
		suspend(t, client)
		for until := time.Now().Add(700 * time.Millisecond); time.Now().Before(until); { // six times a probe's time
			time.Sleep(time.Until(until))
		}
		resume(t, client)
	}
	_, _ = io.WriteString(client.in, "how are you?\n")
	if got, want := client.line(t), "ejected 0 opened 1 lost 0 stream <nil>"; got != want {
		t.Errorf("after three stops: %q, want %q", got, want)
	}
}
