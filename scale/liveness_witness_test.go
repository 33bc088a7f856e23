package scale_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/scale"
)

// roleVariable has the test binary play a part in a test of another process.
const roleVariable = "GRPCPOOL_SCALE_TEST_ROLE"

// playRole is what that process does until its standard input ends.
func playRole(role string) {
	switch kind, rest, _ := strings.Cut(role, " "); kind {
	case "client":
		addr, every, _ := strings.Cut(rest, " ")
		interval, err := time.ParseDuration(every)
		if err != nil {
			panic(err)
		}
		playClient(addr, interval)
	case "server":
		limit, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			panic(err)
		}
		playServer(uint32(limit))
	default:
		panic("no such role: " + role)
	}
}

// playServer answers after 20 ms, and echoes on streams.
func playServer(limit uint32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var opts []grpc.ServerOption
	if limit > 0 {
		opts = append(opts, grpc.MaxConcurrentStreams(limit))
	}
	s := grpc.NewServer(opts...)
	testpb.RegisterTestServiceServer(s, &server{delay: func() time.Duration { return 20 * time.Millisecond }})
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(l) })
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Stop()
	served.Wait()
}

// playClient holds a hundred streams, and says when they stand. When it reads a line it
// says what has become of them and of the channel.
func playClient(addr string, interval time.Duration) {
	observer, probed := new(scale.Observer), make(chan struct{}, 1)
	probe := scale.WithProbe(func(ctx context.Context, cc grpc.ClientConnInterface) error {
		err := cc.Invoke(ctx, "/no.such.service/Call", &testpb.Empty{}, new(testpb.Empty))
		select {
		case probed <- struct{}{}:
		default:
		}
		return err
	})
	cc, err := scale.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), scale.WithObserver(observer),
		probe, scale.WithProbeInterval(interval), scale.WithProbeTimeout(interval))
	if err != nil {
		panic(err)
	}
	defer cc.Close()
	streams := make([]testpb.TestService_FullDuplexCallClient, 0, manyStreams)
	for range manyStreams {
		stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(context.Background())
		if err != nil {
			panic(err)
		}
		streams = append(streams, stream)
	}
	<-probed
	<-probed
	fmt.Println("the streams stand")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	for range 3 {
		<-probed
	}
	sub := observer.Snapshot().Subchannels[0]
	fmt.Println("ejected", sub.Ejected, "lost", sub.Lost, "replaced", sub.Replaced, "streams lost", countLost(streams))
}

// manyStreams are live while a process is stopped.
const manyStreams = 100

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
	addr := startProcess(t, "server 0").line(t)
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
	held := streams(t, ours.stub, manyStreams)
	stop := compute(50 * runtime.GOMAXPROCS(0))
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
	if lost := countLost(held); lost+int(bad.Load()+dialFailed.Load()) != 0 || sub.Ejected != 0 {
		t.Errorf("%d streams were lost, %d calls and %d dials failed: %+v", lost, bad.Load(), dialFailed.Load(), sub)
	}
}

// A dead server is found out nevertheless.
func TestAClientThatIsShortOfCPUEjectsTheDead(t *testing.T) {
	server := startProcess(t, "server 0")
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
func TestStreamsOutliveAStopOfTheirOwnProcess(t *testing.T) {
	for _, tc := range []struct {
		probes string
		stops  []time.Duration
	}{
		{"100ms", []time.Duration{700 * time.Millisecond, 700 * time.Millisecond, 700 * time.Millisecond}},
		{"1s", []time.Duration{5 * time.Second}},
	} {
		t.Run(tc.probes, func(t *testing.T) {
			t.Parallel()
			server := startProcess(t, "server 0")
			client := startProcess(t, "client "+server.line(t)+" "+tc.probes)
			if got := client.line(t); got != "the streams stand" {
				t.Fatal(got)
			}
			for _, stop := range tc.stops {
				suspend(t, client)
				<-time.After(stop)
				resume(t, client)
			}
			_, _ = io.WriteString(client.in, "how are you?\n")
			if got, want := client.line(t), "ejected 0 lost 0 replaced 0 streams lost 0"; got != want {
				t.Errorf("after stops of %v: %q, want %q", tc.stops, got, want)
			}
		})
	}
}

// Row 26, with real processes: a plain channel beside ours shows what the stop by itself
// costs, which is nothing.
func TestStreamsOutliveAStopOfTheServersProcess(t *testing.T) {
	for limit, stop := range map[int]time.Duration{0: longestStop, 30: rand.N(longestStop)} { // 30: several connections
		t.Run(fmt.Sprintf("limit %d, %v", limit, stop), func(t *testing.T) {
			t.Parallel()
			server := startProcess(t, fmt.Sprint("server ", limit))
			addr := server.line(t)
			plain, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			c := newChannel(t, addr)
			ours, theirs := streams(t, c.stub, manyStreams), []testpb.TestService_FullDuplexCallClient(nil)
			if limit == 0 { // where it is 30, a plain channel has no room for calls beside them
				theirs = streams(t, testpb.NewTestServiceClient(plain), manyStreams)
			}
			if lost := countLost(ours); lost > 0 {
				t.Fatalf("%d streams were lost at first", lost)
			}
			endOurs, endTheirs := traffic(c.stub, 100*time.Millisecond), traffic(testpb.NewTestServiceClient(plain), 100*time.Millisecond)
			suspend(t, server)
			<-time.After(stop)
			resume(t, server)
			made, failed := endOurs()
			plainMade, plainFailed := endTheirs()
			if lost, plainLost := countLost(ours), countLost(theirs); lost+plainLost > 0 || failed+plainFailed > 0 {
				t.Errorf("%d streams were lost, and %d of %d calls failed; of the plain channel %d, and %d of %d",
					lost, failed, made, plainLost, plainFailed, plainMade)
			}
			if sub := c.observer.Snapshot().Subchannels[0]; sub.Ejected+sub.Lost > 0 {
				t.Errorf("after the stop: %+v", sub)
			}
		})
	}
}

// Row 27 for real: a hop takes what it is sent, and forwards nothing any more, on one
// connection or on all.
func TestADeadHopIsFoundOut(t *testing.T) {
	for name, all := range map[string]bool{"one connection": false, "every connection": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, serverConfig{})
			hop := newHop(t, s.addr)
			ejected := make(chan scale.Event, 100)
			c := newChannel(t, hop.addr, scale.WithEvents(func(e scale.Event) {
				if e.Kind == scale.EventEjected {
					ejected <- e
				}
			}))
			held := streams(t, c.stub, manyStreams)
			if lost := countLost(held); lost > 0 {
				t.Fatalf("%d streams were lost at first", lost)
			}
			hop.drop(all)
			var e scale.Event
			select {
			case e = <-ejected:
			case <-testContext(t).Done():
				t.Fatalf("never ejected: %+v", c.observer.Snapshot())
			}
			if strings.Contains(e.Text, "another connection was answered") == all {
				t.Errorf("ejected because %s", e.Text)
			}
			for _, stream := range held {
				if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no answer to a probe within ") {
					t.Errorf("a stream ended with %v", err)
				}
			}
			if !all {
				mustHammer(t, c.stub, 2, 2)
			}
		})
	}
}

// hop relays connections to a server until it drops what they send.
type hop struct {
	addr string

	mu      sync.Mutex // guards dropped and relays
	dropped bool       // of new connections too
	relays  []*relay
}

// relay is a connection through a hop. What is sent on it is read, and lost once it drops.
type relay struct{ drops atomic.Bool }

func newHop(t *testing.T, addr string) *hop {
	t.Helper()
	h := new(hop)
	h.addr = relayed(t, addr, func(_ context.Context, client, server net.Conn) {
		r := new(relay)
		h.mu.Lock()
		r.drops.Store(h.dropped)
		h.relays = append(h.relays, r)
		h.mu.Unlock()
		bothWays(func() { r.copy(server, client) }, func() { r.copy(client, server) })
	})
	return h
}

// drop has nothing pass any more on the connections that there are, and on new ones too if
// all.
func (h *hop) drop(all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = all
	for _, r := range h.relays {
		r.drops.Store(true)
	}
}

func (r *relay) copy(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	for buf := make([]byte, 32<<10); ; {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if r.drops.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
