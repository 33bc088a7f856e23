//go:build linux

package faults

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/faultresult"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/scale"
)

// Run plays a script for one kind of client, in this process, which must be in a
// network namespace of its own; see Inside. With full it waits as long as the
// script asks for when somebody measures. What it measured goes to faultresult; an
// expectation that is not met is an error of the test.
func Run(tb testing.TB, script *Script, clientKind string, full bool) {
	tb.Helper()
	w := newWorld(tb, script, clientKind, full)
	for _, step := range script.Steps {
		if err := w.do(step); err != nil {
			w.tb.Errorf("%s:%d: %v", script.File, step.Line, err)
			w.broken = true
			break
		}
	}
	results := w.results() // while the calls are still there
	w.takeDown()
	for _, r := range results {
		faultresult.Record(tb, r)
	}
	if !w.broken {
		w.expectFiles(w.files)
	}
}

func mustCount(tb testing.TB, count func() (int, error)) int {
	tb.Helper()
	n, err := count()
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// world is what a script plays in.
type world struct {
	tb     testing.TB
	script *Script
	kind   string // of client
	full   bool
	start  time.Time
	files  int // descriptors that were open at the start

	network *network
	healing staged               // the end of the network's faults, made ready
	servers []*process           // those that clients know, the control's, and the one behind nginx or haproxy
	proxy   *proxy               // nil: none
	fronts  []*realserver.Server // nginx or haproxy, the control's after the other
	certs   *grpcpooltest.Certs

	load    *load
	control *load // nil: none
	plain   *load // on the same servers; nil: none
	cgroup  *cgroup
	burning *burners // nil: none
	counted counted  // by the first server, up to the last connect
	events  eventCounts
	dials   *peak // nil: not watched

	fault    faultTimes
	outcomes []outcome
	broken   bool // a step could not be done
}

// faultTimes is when the last fault came and went, and what it hit.
type faultTimes struct {
	begun    time.Time // the command that injects it; the fault came then or later
	at       time.Time
	healed   time.Time // zero: not yet
	detected time.Time // zero: not yet
	known    time.Time // when it was promised to be detected, if it was
	bad      []string  // this side's addresses of the connections that it hit
}

// firstPort is where the first server listens, in its namespace; the control's
// server has a port of its own.
const (
	firstPort   = 5001
	controlPort = 5100
)

func newWorld(tb testing.TB, script *Script, kind string, full bool) *world {
	tb.Helper()
	w := &world{tb: tb, script: script, kind: kind, full: full, start: time.Now(), network: newNetwork(tb)}
	w.files = mustCount(tb, openFiles)
	var err error
	if w.certs, err = newCertificates(); err != nil {
		tb.Fatal(err)
	}
	addrs, controlAddr := w.startServers()
	if err := reachable(addrs[0]); err != nil {
		tb.Fatal(err)
	}
	if script.Proxy {
		if w.proxy, err = newProxy(addrs[0]); err != nil {
			tb.Fatal(err)
		}
		addrs[0] = w.proxy.addr()
	}
	if slices.ContainsFunc(script.Steps, func(s Step) bool {
		e, ok := s.Do.(expectStep)
		return ok && e.what == expectDials
	}) {
		w.dials = new(peak)
	}
	w.load = newLoad()
	w.load.client = newClient(tb, kind, w.certs, addrs, grpc.WithStatsHandler(w.load), scale.WithEvents(w.note))
	if script.Plain {
		w.plain = newLoad()
		w.plain.client = newClient(tb, ClientPlain, w.certs, addrs, grpc.WithStatsHandler(w.plain))
	}
	if script.uses(faultThrottle) {
		w.cgroup = useCgroup(tb)
	}
	if script.Control {
		w.control = newLoad()
		w.control.client = newClient(tb, kind, w.certs, []string{controlAddr}, grpc.WithStatsHandler(w.control))
	}
	return w
}

// newCertificates mints what servers and client show, valid for every address in
// the world.
func newCertificates() (*grpcpooltest.Certs, error) {
	ca, err := grpcpooltest.NewCA("faults")
	if err != nil {
		return nil, err
	}
	server, err := ca.Issue(grpcpooltest.CertRequest{Hosts: []string{serverAddress, "127.0.0.1", "localhost", serversName}})
	if err != nil {
		return nil, err
	}
	client, err := ca.Issue(grpcpooltest.CertRequest{})
	if err != nil {
		return nil, err
	}
	return &grpcpooltest.Certs{CA: ca, Server: server, Client: client}, nil
}

// startServers starts what the script asks for and returns where clients find it.
func (w *world) startServers() (addrs []string, control string) {
	w.tb.Helper()
	spec := w.script.Server
	if spec.Kind != ServerGRPC {
		return w.startFront()
	}
	for i := range spec.Count {
		addr := fmt.Sprintf("%s:%d", serverAddress, firstPort+i)
		w.startProcess(w.network.server, serverConfig{
			Addr: addr, Limit: uint32(spec.Limit), Age: spec.Age, Takes: spec.Takes, Mute: spec.Mute, //nolint:gosec // the parser bounds it
		})
		addrs = append(addrs, addr)
	}
	if w.script.Control {
		control = fmt.Sprintf("%s:%d", serverAddress, controlPort)
		w.startProcess(w.network.server, serverConfig{Addr: control, Limit: uint32(spec.Limit)}) //nolint:gosec // as above
	}
	return addrs, control
}

// nginxLimit is nginx's own default.
const nginxLimit = 128

// startFront starts nginx or haproxy, on loopback, with a server behind it, and
// another for the control.
func (w *world) startFront() (addrs []string, control string) {
	w.tb.Helper()
	spec := w.script.Server
	backend := realserver.FreeAddr(w.tb)
	w.run(&process{config: serverConfig{Addr: backend, Takes: spec.Takes, Mute: spec.Mute}})
	start := realserver.StartNginx
	if spec.Kind == ServerHAProxy {
		start = realserver.StartHAProxy
	}
	cfg := realserver.Config{Certs: w.certs, MaxStreams: cmp.Or(spec.Limit, nginxLimit), Backend: backend}
	w.fronts = append(w.fronts, start(w.tb, cfg))
	if w.script.Control {
		w.fronts = append(w.fronts, start(w.tb, cfg))
		control = w.fronts[1].Addr
	}
	return []string{w.fronts[0].Addr}, control
}

// reachable waits until a server can be reached at once. The first packets over a
// new cable may be lost, and then the kernel tries again a second later.
func reachable(addr string) error {
	var last error
	if !eventually(func() bool {
		var conn net.Conn
		if conn, last = net.DialTimeout("tcp", addr, settles/50); last == nil { //nolint:noctx // short
			_ = conn.Close()
		}
		return last == nil
	}) {
		return fmt.Errorf("faults: %s cannot be reached: %w", addr, last)
	}
	return nil
}

// startProcess starts a server with mutual TLS.
func (w *world) startProcess(in string, cfg serverConfig) {
	w.tb.Helper()
	cfg.CA, cfg.Cert, cfg.Key = w.certs.CA.PEM, w.certs.Server.CertPEM, w.certs.Server.KeyPEM
	w.run(&process{config: cfg, in: in})
}

func (w *world) run(p *process) {
	w.tb.Helper()
	if err := p.start(); err != nil {
		w.tb.Fatal(err)
	}
	w.servers = append(w.servers, p)
	w.tb.Cleanup(p.kill)
}

// note logs an event of the client's channels.
func (w *world) note(e scale.Event) {
	w.events.note(e)
	w.logf("connection %d to %s: %s after %v. %s", e.Connection, e.Address, e.Kind, e.Took.Round(time.Microsecond), e.Text)
}

// logf writes a line of the story.
func (w *world) logf(format string, args ...any) {
	w.tb.Logf("%7.3fs %s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...))
}

// do does one step.
func (w *world) do(step Step) error {
	w.logf("line %d: %s", step.Line, step.Text)
	switch do := step.Do.(type) {
	case waitStep:
		d := do.d
		if w.full { // not at the same moment of a timer or a backoff each time
			d = do.full + rand.N(time.Second) //nolint:gosec // not a secret
		}
		time.Sleep(d)
		return nil
	case awaitStep:
		return w.await(do)
	case restartsStep:
		return w.restarts(do)
	case faultStep:
		return w.inject(do)
	case healStep:
		return w.heal()
	case expectStep:
		w.expect(step.Line, do)
		return nil
	default:
		return w.everywhere(func(l *load) error { return w.begin(l, step.Do) })
	}
}

// begin begins what a step asks of a load.
func (w *world) begin(l *load, step action) error {
	switch do := step.(type) {
	case connectStep:
		err := l.unary(callTimeout)
		if err == nil {
			w.counted, err = w.servers[0].count()
		}
		return err
	case callStep:
		l.call(do)
		return nil
	case callsStep:
		var err error
		if w.fault.at.IsZero() {
			err = l.unary(callTimeout)
		}
		l.calls(do)
		return err
	case callersStep:
		l.callers(do)
		return nil
	case holdStep:
		for range do.n {
			if err := l.hold(); err != nil {
				return err
			}
		}
		return nil
	case streamStep:
		return l.stream(do.every)
	default:
		return fmt.Errorf("faults: nothing does %T", do)
	}
}

// everywhere does something on the load, and the same on the control's and plain's.
func (w *world) everywhere(do func(*load) error) error {
	var errs []error
	for _, l := range []*load{w.load, w.control, w.plain} {
		if l != nil {
			errs = append(errs, do(l))
		}
	}
	return errors.Join(errs...)
}

// settles is how long the end of a load may take to be seen everywhere.
const settles = 5 * time.Second

// takeDown ends the load and the client, which must leave nothing behind.
func (w *world) takeDown() {
	w.tb.Helper()
	w.dials.end()
	w.burning.end()
	w.healing.cancel()
	_ = w.everywhere(func(l *load) error {
		l.end()
		leftOver := func() int {
			n := l.client.leases()
			for _, c := range connections(l.client.inside()) {
				n += c.InFlight
			}
			return n
		}
		if !eventually(func() bool { return leftOver() == 0 }) {
			w.tb.Errorf("%v after the last call %d streams and leases are still out", settles, leftOver())
		}
		if err := l.client.close(); err != nil {
			w.tb.Errorf("closing the client: %v", err)
		}
		return nil
	})
	if w.proxy != nil {
		w.proxy.stop()
	}
	for _, front := range w.fronts {
		front.Kill()
	}
	for _, server := range w.servers {
		server.kill()
	}
}

// expectFiles waits until this process has no more descriptors than it had.
func (w *world) expectFiles(before int) {
	w.tb.Helper()
	now := 0
	if !eventually(func() bool { now = mustCount(w.tb, openFiles); return now <= before }) {
		w.tb.Errorf("%d file descriptors are open, and %d were before", now, before)
	}
}

// eventually waits until cond holds and reports whether it did.
func eventually(cond func() bool) bool {
	deadline := time.Now().Add(settles)
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// results are what was measured, for each row of the script.
func (w *world) results() (all []faultresult.Result) {
	w.tb.Helper()
	if w.broken {
		return nil
	}
	w.putLate()
	mine := summary(w.outcomes)
	mine.Client, mine.Injected = w.kind, w.script.Injected
	results := []faultresult.Result{mine}
	if w.plain != nil {
		results = append(results, w.besides())
	}
	for _, row := range w.script.Rows {
		for _, r := range results {
			r.Row, r.Note = row, strings.TrimSuffix(w.script.File+": "+r.Note, ": ")
			all = append(all, r)
		}
	}
	return all
}
