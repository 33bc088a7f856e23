package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/bench/cpu"
)

// ServeArgument as a program's only argument asks it to call Serve: the scenarios that
// need a server or a client in a process of its own start their program again.
const ServeArgument = "serve"

// request is what a child is asked; its answer is a response. Both are JSON, a request
// is answered before the next is read.
type request struct {
	Do   string          `json:"do"`
	Args json.RawMessage `json:"args"`
}

type response struct {
	Reply any    `json:"reply,omitempty"`
	Error string `json:"error,omitempty"`
}

// process is what a child process has. It does one thing after the other.
type process struct {
	servers []*server
	held    *held
	busy    *busy
}

func (p *process) deeds() map[string]func(context.Context, json.RawMessage) (any, error) {
	return map[string]func(context.Context, json.RawMessage) (any, error){
		"listen": with(p.listen),
		"down":   with(p.down),
		"up":     with(p.up),
		"cpu":    with(func(context.Context, struct{}) (any, error) { return cpu.Time(), nil }),
		"hold":   with(p.hold),
		"open":   with(p.open),
		"load":   with(p.load),
		"run":    with(p.run),
	}
}

// with reads the arguments of f.
func with[A any](f func(context.Context, A) (any, error)) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, fmt.Errorf("child: %w", err)
		}
		return f(ctx, args)
	}
}

// Serve does what it is asked in r until r ends, and writes the answers to w.
func Serve(ctx context.Context, r io.Reader, w io.Writer) error {
	p := new(process)
	defer p.close()
	deeds := p.deeds()
	in, out := json.NewDecoder(r), json.NewEncoder(w)
	for {
		var asked request
		if err := in.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("child: %w", err)
		}
		var answer response
		if do := deeds[asked.Do]; do == nil {
			answer.Error = fmt.Sprintf("child: it cannot do %q", asked.Do)
		} else if reply, err := do(ctx, asked.Args); err != nil {
			answer.Error = err.Error()
		} else {
			answer.Reply = reply
		}
		if err := out.Encode(answer); err != nil {
			return fmt.Errorf("child: %w", err)
		}
	}
}

func (p *process) close() {
	if p.held != nil {
		p.held.close()
	}
	if p.busy != nil {
		p.busy.close()
	}
	for _, s := range p.servers {
		s.stop()
	}
}

// child is another process of this program, which ends with ctx or by stop.
type child struct {
	cmd     *exec.Cmd
	address string // of its server, if startChild made it
	stdin   io.WriteCloser
	marked  time.Duration // what it had used when a scenario last looked

	mu  sync.Mutex // held from a request to its response
	in  *json.Decoder
	out *json.Encoder
}

// startChild starts a process with a server in it.
func startChild(ctx context.Context) (*child, error) {
	c, err := spawn(ctx)
	if err != nil {
		return nil, err
	}
	addresses, err := c.listen(listenArgs{Servers: 1})
	if err != nil {
		c.stop()
		return nil, err
	}
	c.address = addresses[0]
	return c, nil
}

// spawn starts a process that waits for what it is asked.
func spawn(ctx context.Context) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, ServeArgument) //nolint:gosec // this program itself
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	return &child{cmd: cmd, stdin: stdin, in: json.NewDecoder(stdout), out: json.NewEncoder(stdin)}, nil
}

// ask has the child do something and waits until it has. The reply may be nil.
func (c *child) ask(do string, args, reply any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("child: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.Encode(request{do, raw}); err != nil {
		return fmt.Errorf("child: asking it to %s: %w", do, err)
	}
	answer := struct {
		Reply json.RawMessage `json:"reply"`
		Error string          `json:"error"`
	}{}
	if err := c.in.Decode(&answer); err != nil {
		return fmt.Errorf("child: its answer to %s: %w", do, err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Reply, reply); err != nil {
		return fmt.Errorf("child: its answer to %s: %w", do, err)
	}
	return nil
}

// stop ends the process, also one that is stopped by a signal.
func (c *child) stop() {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(fmt.Sprintf("ending a server process: %v", err)) // it would run on
	}
	_ = c.cmd.Wait() // says that it was killed
	_ = c.stdin.Close()
}

// listenArgs are servers that a child is to have.
type listenArgs struct {
	Servers int
	Host    string // default 127.0.0.1
	Streams uint32 // on a connection; default limit
	Delay   time.Duration
	Keys    *keys // nil: plaintext
}

// listen returns the addresses.
func (c *child) listen(args listenArgs) (addresses []string, err error) {
	err = c.ask("listen", args, &addresses)
	return addresses, err
}

func (p *process) listen(ctx context.Context, args listenArgs) (any, error) {
	if args.Host == "" {
		args.Host = "127.0.0.1"
	}
	opts := []grpc.ServerOption{grpc.MaxConcurrentStreams(max(args.Streams, limit))}
	if args.Keys != nil {
		creds, err := args.Keys.server()
		if err != nil {
			return nil, err
		}
		opts = append(opts, grpc.Creds(creds))
	}
	var delay func() time.Duration
	if args.Delay > 0 {
		delay = always(args.Delay)
	}
	addresses := make([]string, 0, args.Servers)
	for range args.Servers {
		s, err := startAt(ctx, args.Host+":0", delay, opts...)
		if err != nil {
			return nil, err
		}
		p.servers = append(p.servers, s)
		addresses = append(addresses, s.address)
	}
	return addresses, nil
}

// down stops the server at an address.
func (p *process) down(_ context.Context, address string) (any, error) {
	s, err := p.at(address)
	if err != nil {
		return nil, err
	}
	s.stop()
	return nil, nil //nolint:nilnil // there is nothing to say
}

// up starts it again and returns the time, in Unix nanoseconds, at which it listened.
func (p *process) up(ctx context.Context, address string) (any, error) {
	s, err := p.at(address)
	if err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s.listening.UnixNano(), nil
}

func (p *process) at(address string) (*server, error) {
	i := slices.IndexFunc(p.servers, func(s *server) bool { return s.address == address })
	if i < 0 {
		return nil, fmt.Errorf("child: there is no server at %s", address)
	}
	return p.servers[i], nil
}
