package faults

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
)

// Script is a scenario: what there is, what is done to it, and what is expected.
// README.md describes how one is written.
type Script struct {
	File     string // its base name
	Rows     []int  // of the fault matrix
	Injected string // for the report: how
	Clients  []string
	Plain    bool // a channel of grpc.NewClient does the same beside the client, on the same server
	Server   ServerSpec
	Proxy    bool // toxiproxy stands between client and server
	Control  bool // the same load runs on a second server, to which nothing happens
	Alone    bool // no other scenario may run meanwhile
	Once     bool // is not repeated
	Steps    []Step
}

// The kinds of clients and servers.
const (
	ClientScale = "scale" // a channel of scale.NewClient
	ClientPool  = "pool"  // a pool of shared.New over a factory with mutual TLS
	ClientPlain = "plain" // a channel of grpc.NewClient, beside one of the others

	ServerGRPC    = "grpc"    // grpc-go in a process of its own, in a network namespace of its own
	ServerNginx   = "nginx"   // nginx in front of such a process, on loopback
	ServerHAProxy = "haproxy" // haproxy, as nginx
)

// ServerSpec says what the server is like.
type ServerSpec struct {
	Kind  string
	Limit int           // on concurrent streams; 0: none
	Age   time.Duration // after which it retires a connection (MaxConnectionAge); 0: never
	Count int           // how many servers there are; a client prefers the first
	Takes time.Duration // that a unary call takes at least
	Mute  bool          // its health service never answers
}

// Step is one thing that a script does.
type Step struct {
	Line int
	Text string // as written, without needless space
	Do   action
}

// action is one of the types that end in Step.
type action any

// parser is where Parse is.
type parser struct {
	script Script
	line   int
	faults int // so far
	active int // of these, not healed yet
	expect int // expectations so far
	calls  bool

	restarts bool
}

// Parse reads a script. An error names file and line.
func Parse(file, text string) (*Script, error) {
	p := &parser{script: Script{File: filepath.Base(file)}}
	for line := range strings.Lines(text) {
		p.line++
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := p.statement(words[0], words[1:]); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", p.script.File, p.line, words[0], err)
		}
	}
	if err := p.finish(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.script.File, err)
	}
	return &p.script, nil
}

// statement reads one line.
func (p *parser) statement(verb string, args []string) error {
	if read, ok := declarations[verb]; ok {
		if len(p.script.Steps) > 0 {
			return errors.New("must stand before the first step")
		}
		return read(p, args)
	}
	if read, ok := steps[verb]; ok {
		do, err := read(p, args)
		if err != nil {
			return err
		}
		p.script.Steps = append(p.script.Steps, Step{p.line, strings.Join(append([]string{verb}, args...), " "), do})
		return nil
	}
	return fmt.Errorf("is not a word that begins a line; those are %s",
		strings.Join(append(sortedKeys(declarations), sortedKeys(steps)...), ", "))
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// finish checks the whole script.
func (p *parser) finish() error {
	s := &p.script
	switch {
	case len(s.Rows) == 0:
		return errors.New(`no row of the fault matrix; say "row N"`)
	case s.Injected == "":
		return errors.New(`nothing says how the fault is injected; say "injected ..."`)
	case len(s.Clients) == 0:
		return errors.New(`no client; say "client scale pool", or one of them`)
	case s.Server.Kind == "":
		return errors.New(`no server; say "server grpc"`)
	case p.expect == 0:
		return errors.New("nothing is expected, so it could not fail")
	default:
		return nil
	}
}

// declarations read the lines that say what there is.
var declarations = map[string]func(*parser, []string) error{
	"row":      (*parser).row,
	"injected": (*parser).injected,
	"client":   (*parser).client,
	"server":   (*parser).server,
	"proxy":    func(p *parser, args []string) error { return set(&p.script.Proxy, args) },
	"control":  func(p *parser, args []string) error { return set(&p.script.Control, args) },
	"alone":    func(p *parser, args []string) error { return set(&p.script.Alone, args) },
	"once":     func(p *parser, args []string) error { return set(&p.script.Once, args) },
}

func set(flag *bool, args []string) error {
	if *flag {
		return errTwice
	}
	*flag = true
	return none(args)
}

var errTwice = errors.New("is said twice")

func none(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is too much, nothing follows it", args[0])
	}
	return nil
}

func (p *parser) row(args []string) error {
	if len(p.script.Rows) > 0 {
		return errTwice
	}
	if len(args) == 0 {
		return errors.New("want one row or more")
	}
	for _, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil || n < 1 || n > faultresult.Rows {
			return fmt.Errorf("%q is not a row, want 1 to %d", arg, faultresult.Rows)
		}
		if slices.Contains(p.script.Rows, n) {
			return errTwice
		}
		p.script.Rows = append(p.script.Rows, n)
	}
	return nil
}

func (p *parser) injected(args []string) error {
	if p.script.Injected != "" {
		return errTwice
	}
	if len(args) == 0 {
		return errors.New("want a few words that say how")
	}
	p.script.Injected = strings.Join(args, " ")
	return nil
}

func (p *parser) client(args []string) error {
	if len(p.script.Clients) > 0 {
		return errTwice
	}
	for _, arg := range args {
		switch {
		case arg != ClientScale && arg != ClientPool && arg != ClientPlain:
			return fmt.Errorf("%q is not a client, want %s or %s, and %s beside them", arg, ClientScale, ClientPool, ClientPlain)
		case slices.Contains(p.script.Clients, arg) || (arg == ClientPlain && p.script.Plain):
			return errTwice
		case arg == ClientPlain:
			p.script.Plain = true
		default:
			p.script.Clients = append(p.script.Clients, arg)
		}
	}
	return nil
}

func (p *parser) server(args []string) error {
	if p.script.Server.Kind != "" {
		return errTwice
	}
	kinds := []string{ServerGRPC, ServerNginx, ServerHAProxy}
	if len(args) == 0 || !slices.Contains(kinds, args[0]) {
		return fmt.Errorf("want one of %s", strings.Join(kinds, ", "))
	}
	spec := ServerSpec{Kind: args[0], Count: 1}
	for _, arg := range args[1:] {
		if err := spec.set(arg); err != nil {
			return err
		}
	}
	if spec.Kind != ServerGRPC && (spec.Count > 1 || spec.Age > 0) {
		return fmt.Errorf("there is one %[1]s, and the age of %[1]s's connections cannot be set", spec.Kind)
	}
	p.script.Server = spec
	return nil
}

// set reads one "name=value".
func (s *ServerSpec) set(arg string) (err error) {
	name, value, ok := strings.Cut(arg, "=")
	if !ok {
		return fmt.Errorf("%q: want name=value", arg)
	}
	switch name {
	case "limit":
		s.Limit, err = between(value, 1, 1<<20)
	case "servers":
		s.Count, err = between(value, 1, 8)
	case "age":
		s.Age, err = duration(value)
	case "takes":
		s.Takes, err = duration(value)
	case "health":
		if s.Mute = value == "hangs"; !s.Mute {
			return fmt.Errorf("%q: want health=hangs", arg)
		}
	default:
		return fmt.Errorf("%q: there are limit=, age=, servers=, takes= and health=", arg)
	}
	return err
}

func between(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q: want a number from %d to %d", text, least, most)
	}
	return n, nil
}

// longest bounds the durations in scripts, so that a slip does not hang a run.
const longest = time.Hour

func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > longest {
		return 0, fmt.Errorf("%q: want a duration such as 1.5s, above 0 and up to %v", text, longest)
	}
	return d, nil
}
