package compat_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/davidwartell/go-grpcpool/snappy"
	"github.com/davidwartell/go-grpcpool/snappy/compat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer builds the other program and returns a command that runs it.
func peer(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "peer")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./peer").CombinedOutput(); err != nil {
		t.Fatalf("building the peer: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Stderr = os.Stderr
	return cmd
}

// counter counts messages that arrived compressed by snappy, and what that saved.
type counter struct {
	messages, saved atomic.Int64
}

func (c *counter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *counter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *counter) HandleConn(context.Context, stats.ConnStats)                       {}

func (c *counter) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.InHeader:
		if s.Compression == snappy.Name {
			c.messages.Add(1)
		}
	case *stats.InPayload:
		c.saved.Add(int64(s.Length - s.CompressedLength))
	}
}

func (c *counter) check(t *testing.T) {
	t.Helper()
	if n := len(compat.Messages()); c.messages.Load() != int64(n) {
		t.Errorf("%d messages arrived under the name %q, want %d", c.messages.Load(), snappy.Name, n)
	}
	if c.saved.Load() < 1<<20 {
		t.Errorf("compression saved %d bytes", c.saved.Load())
	}
}

func TestOurClientAndTheirServerUnderstandEachOther(t *testing.T) {
	server := peer(t, "serve")
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer stdin.Close()
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}

	if !snappy.Registered() {
		t.Fatal("this process does not use our compressor")
	}
	seen := new(counter)
	cc, err := grpc.NewClient(strings.TrimSpace(addr), grpc.WithStatsHandler(seen),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.UseCompressor(snappy.Name)))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	for _, message := range compat.Messages() {
		reply := new(wrapperspb.BytesValue)
		if err := cc.Invoke(t.Context(), compat.EchoMethod, wrapperspb.Bytes(message), reply); err != nil {
			t.Fatalf("%d bytes: %v", len(message), err)
		}
		if !bytes.Equal(reply.GetValue(), message) {
			t.Errorf("the echo of %d bytes differs", len(message))
		}
	}
	seen.check(t)
}

func TestTheirClientAndOurServerUnderstandEachOther(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := new(counter)
	s := grpc.NewServer(grpc.StatsHandler(seen))
	s.RegisterService(&compat.Service, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(lis)
	}()
	if err := peer(t, "call", lis.Addr().String()).Run(); err != nil {
		t.Error(err)
	}
	s.Stop()
	<-done
	seen.check(t)
}
