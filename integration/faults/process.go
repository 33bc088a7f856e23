//go:build linux

package faults

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"

	"github.com/davidwartell/go-grpcpool/identity"
)

// asServer is the environment variable that makes a process a server.
const asServer = "FAULTS_SERVER"

// serverConfig is what it holds, as JSON.
type serverConfig struct {
	Addr  string        `json:"addr"`
	CA    []byte        `json:"ca"` // PEM; with Cert and Key: mutual TLS. Without: plaintext
	Cert  []byte        `json:"cert"`
	Key   []byte        `json:"key"`
	Limit uint32        `json:"limit"` // on concurrent streams; 0: none
	Age   time.Duration `json:"age"`   // MaxConnectionAge; 0: none
}

// credentials demand a client certificate.
func (cfg serverConfig) credentials() (credentials.TransportCredentials, error) {
	pair, err := identity.ParseKeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("faults: the server's pair: %w", err)
	}
	clients, err := identity.ParseRoots(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("faults: the authority of the clients: %w", err)
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}), nil
}

// serving is the line that a server prints when it listens.
const serving = "serving\n"

// ServeIfAsked makes this process a server if it was started as one, and then does
// not return. Programs that run scenarios call it first of all.
func ServeIfAsked() {
	config := os.Getenv(asServer)
	if config == "" {
		return
	}
	if err := serve(config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve serves until its standard input ends, which is when its parent has.
func serve(config string) error {
	var cfg serverConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return fmt.Errorf("faults: %s: %w", asServer, err)
	}
	var opts []grpc.ServerOption
	if cfg.Cert != nil {
		creds, err := cfg.credentials()
		if err != nil {
			return err
		}
		opts = append(opts, grpc.Creds(creds))
	}
	if cfg.Limit > 0 {
		opts = append(opts, grpc.MaxConcurrentStreams(cfg.Limit))
	}
	if cfg.Age > 0 {
		opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: cfg.Age}))
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Addr)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	server := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(server, health.NewServer())
	testpb.RegisterTestServiceServer(server, testService{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Print(serving)
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("faults: serving: %w", err)
	}
	return nil
}

// testService answers the calls of scenarios.
type testService struct {
	testpb.UnimplementedTestServiceServer
}

func (testService) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, nil
}

// FullDuplexCall says that it has begun, and then nothing until the client is done.
func (testService) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return nil //nolint:nilerr // whatever ended it, it has ended
		}
	}
}

// StreamingOutputCall sends empty messages at the interval that the request names,
// until the client is gone.
func (testService) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	tick := time.NewTicker(time.Duration(in.GetResponseParameters()[0].GetIntervalUs()) * time.Microsecond)
	defer tick.Stop()
	for {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// process is a server in a process of its own, which can be stopped, killed and
// started again.
type process struct {
	config serverConfig
	in     string // the path of its network namespace; "": this process's own

	cmd     *exec.Cmd // nil: dead
	stdin   io.Closer
	stopped bool
}

// start starts the process and returns when it listens.
func (p *process) start() error {
	config, err := json.Marshal(p.config)
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	argv := []string{self}
	if p.in != "" {
		nsenter, err := find("nsenter") // becomes the server: the process is the same
		if err != nil {
			return fmt.Errorf("faults: %w", err)
		}
		argv = []string{nsenter, "--net=" + p.in, self}
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec,noctx // ended by kill
	cmd.Env = append(os.Environ(), asServer+"="+string(config))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("faults: starting a server: %w", err)
	}
	p.cmd, p.stdin, p.stopped = cmd, stdin, false
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != serving {
		p.kill()
		return fmt.Errorf("faults: the server at %s said %q instead of %q: %w", p.config.Addr, line, serving, err)
	}
	return nil
}

// signal stops the process or lets it go on.
func (p *process) signal(stop bool) error {
	if p.cmd == nil {
		return errors.New("faults: the server is dead already")
	}
	p.stopped = stop
	sig := syscall.SIGCONT
	if stop {
		sig = syscall.SIGSTOP
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	return nil
}

// kill ends the process at once and waits for it. Killing a dead one does nothing.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // fails if it is dead, which is what is wanted
	_ = p.cmd.Wait()         // says that it was killed
	_ = p.stdin.Close()
	p.cmd = nil
}

// heal lets the process go on, or starts it again.
func (p *process) heal() error {
	switch {
	case p.cmd == nil:
		return p.start()
	case p.stopped:
		return p.signal(false)
	default:
		return nil
	}
}

// openFiles counts the descriptors of this process.
func openFiles() (int, error) {
	entries, err := os.ReadDir(filepath.Join("/proc", "self", "fd"))
	if err != nil {
		return 0, fmt.Errorf("faults: %w", err)
	}
	return len(entries), nil
}
