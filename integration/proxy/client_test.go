//go:build unix

package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

const streamsOfAClient = 20

// runClient is a program that uses a proxy.
//
//	call      makes one call
//	hold      opens streams, moves a message on each, and waits to be killed
//	stranger  becomes another user and makes one call
func runClient(mode, socket string) int {
	if mode == "stranger" {
		if err := syscall.Setuid(65534); err != nil {
			fmt.Println(err)
			return 3
		}
	}
	cc, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return 3
	}
	defer cc.Close()
	client := testpb.NewTestServiceClient(cc)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if mode != "hold" {
		_, err := client.EmptyCall(ctx, &testpb.Empty{})
		fmt.Println(status.Code(err))
		return int(status.Code(err))
	}
	for range streamsOfAClient {
		stream, err := client.FullDuplexCall(ctx)
		if err == nil {
			err = stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 10_000}}})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			fmt.Println(err)
			return 3
		}
	}
	fmt.Println("holding")
	select {}
}

func (r *running) program(mode string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], r.socket)
	cmd.Env = append(os.Environ(), asClient+"="+mode)
	return cmd
}

func TestThirtyProgramsShareOneConnection(t *testing.T) {
	s := startServer(t, interop.NewTestServer())
	p := startProxy(t, s.certs, s.addr)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if out, err := p.program("call").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
}

func TestClientsKilledInMidStreamLeaveNothing(t *testing.T) {
	s := startServer(t, interop.NewTestServer())
	p := startProxy(t, s.certs, s.addr)
	if _, err := testpb.NewTestServiceClient(p.client()).EmptyCall(within(t, soon), &testpb.Empty{}); err != nil {
		t.Fatal(err)
	}
	before := p.files()
	for range 3 {
		cmd := p.program("hold")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "holding\n" {
			t.Fatalf("the client said %q, %v", line, err)
		}
		if n := s.streams.Load(); n != streamsOfAClient {
			t.Errorf("%d streams at the server, want %d", n, streamsOfAClient)
		}
		cmd.Process.Kill() // SIGKILL
		cmd.Wait()
		eventually(t, "the server's streams have ended", func() bool { return s.streams.Load() == 0 })
	}
	eventually(t, "the proxy has closed what it had opened", func() bool { return p.files() <= before })
}

// reachable lets every user come to the socket: t.TempDir is the owner's.
func (r *running) reachable() {
	dir := filepath.Dir(r.socket)
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestAProcessOfAnotherUserGetsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("GRPCPOOL_REQUIRE_ALL") != "" {
			t.Fatal("only root can become another user")
		}
		t.Skip("only root can become another user")
	}
	s := startServer(t, interop.NewTestServer())
	open := startProxy(t, s.certs, s.addr, "--socket-mode", "0666") // so that the mode does not decide
	open.reachable()
	out, err := open.program("stranger").CombinedOutput()
	if string(out) != "Unavailable\n" {
		t.Errorf("a stranger got %q, %v, want Unavailable", out, err)
	}
	if !strings.Contains(open.log.String(), "runs as uid 65534") {
		t.Error("it was not the proxy that refused it")
	}
	if n := s.accepted.Load(); n != 0 {
		t.Errorf("the server saw %d connections", n)
	}
	invited := startProxy(t, s.certs, s.addr, "--socket-mode", "0666", "--allow-uid", "65534")
	invited.reachable()
	if out, err := invited.program("stranger").CombinedOutput(); err != nil {
		t.Errorf("a stranger who is invited got %q, %v", out, err)
	}
}

// Some do nothing, some send what is no HTTP/2, some leave in mid-handshake, and
// every tenth makes a call.
func TestTenThousandClientsComeAndGo(t *testing.T) {
	s := startServer(t, interop.NewTestServer())
	p := startProxy(t, s.certs, s.addr)
	if _, err := testpb.NewTestServiceClient(p.client()).EmptyCall(within(t, soon), &testpb.Empty{}); err != nil {
		t.Fatal(err)
	}
	before := p.files()
	const clients, atATime = 10_000, 20
	ctx := within(t, 5*time.Minute)
	var wg sync.WaitGroup
	for worker := range atATime {
		wg.Go(func() {
			for i := range clients / atATime {
				var err error
				if i%10 == 0 {
					err = callOnce(ctx, p.socket)
				} else {
					err = rudely(p.socket, worker+i)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "the proxy has closed what it had opened", func() bool { return p.files() <= before })
	if err := callOnce(ctx, p.socket); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
}

func callOnce(ctx context.Context, socket string) error {
	cc, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	_, err = testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
	return err
}

func rudely(socket string, i int) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	// What the proxy says to this, if anything, is of no interest.
	conn.Write([]byte([]string{
		"", "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"\x16\x03\x01" + strconv.Itoa(i),
	}[i%5]))
	return nil
}
