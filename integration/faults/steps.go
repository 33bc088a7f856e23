package faults

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// callTimeout is the deadline of a call for which the script names none: so long
// that it is the library that ends a call on a dead connection, not the caller.
const callTimeout = 15 * time.Second

// What a script can do.
type (
	// connectStep makes one call, which opens a connection.
	connectStep struct{}

	// callsStep begins a unary call every so often, whether or not those before
	// it have ended.
	callsStep struct{ every, timeout time.Duration }

	// holdStep opens streams on which nothing is sent.
	holdStep struct{ n int }

	// streamStep opens a stream on which the server sends a small message every
	// so often.
	streamStep struct{ every time.Duration }

	// waitStep lets time pass; when measuring in full, perhaps more of it.
	waitStep struct{ d, full time.Duration }

	// healStep ends every fault.
	healStep struct{}

	// faultStep injects a fault.
	faultStep struct {
		kind   string
		arg    string        // a direction or the name of a toxic
		amount float64       // percent, or kilobytes per second
		delay  time.Duration // of a toxic
		server int           // counted from 0
	}

	// expectStep checks a figure.
	expectStep struct {
		text     string // as written
		what     string
		exact    bool          // "=" instead of "<="
		number   float64       // a count, or a ratio
		duration time.Duration // 0: number counts
		codes    []string
	}
)

// steps read the lines that do something.
var steps = map[string]func(*parser, []string) (action, error){
	"connect": func(_ *parser, args []string) (action, error) { return connectStep{}, none(args) },
	"calls":   (*parser).callsStep,
	"hold":    (*parser).holdStep,
	"stream":  (*parser).streamStep,
	"wait":    (*parser).waitStep,
	"fault":   (*parser).faultStep,
	"heal":    (*parser).healStep,
	"expect":  (*parser).expectStep,
}

func (p *parser) callsStep(args []string) (action, error) {
	step := callsStep{timeout: callTimeout}
	err := pairs(args, map[string]func(string) error{
		"every":   into(&step.every, duration),
		"timeout": into(&step.timeout, duration),
	})
	if err == nil && step.every == 0 {
		err = errors.New(`want "every" and how often, such as "every 20ms"`)
	}
	p.calls = true
	return step, err
}

func (p *parser) holdStep(args []string) (action, error) {
	if len(args) != 1 {
		return nil, errors.New("want how many streams")
	}
	n, err := between(args[0], 1, 10_000)
	return holdStep{n}, err
}

func (p *parser) streamStep(args []string) (action, error) {
	var step streamStep
	err := pairs(args, map[string]func(string) error{"every": into(&step.every, duration)})
	if err == nil && step.every == 0 {
		err = errors.New(`want "every" and how often, such as "every 20ms"`)
	}
	return step, err
}

func (p *parser) waitStep(args []string) (action, error) {
	if len(args) == 0 {
		return nil, errors.New("want how long")
	}
	d, err := duration(args[0])
	if err != nil {
		return nil, err
	}
	step := waitStep{d, d}
	return step, pairs(args[1:], map[string]func(string) error{"full": into(&step.full, duration)})
}

func (p *parser) healStep(args []string) (action, error) {
	if p.active == 0 {
		return nil, errors.New("there is no fault to heal")
	}
	p.active = 0
	return healStep{}, none(args)
}

// pairs reads "name value name value".
func pairs(args []string, known map[string]func(string) error) error {
	for len(args) > 0 {
		read, ok := known[args[0]]
		if !ok {
			return fmt.Errorf("%q: want one of %s", args[0], strings.Join(sortedKeys(known), ", "))
		}
		if len(args) < 2 {
			return fmt.Errorf("%q: want a value after it", args[0])
		}
		if err := read(args[1]); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		args = args[2:]
	}
	return nil
}

func into[V any](to *V, read func(string) (V, error)) func(string) error {
	return func(text string) (err error) {
		*to, err = read(text)
		return err
	}
}

// The kinds of faults.
const (
	faultDrop   = "drop"   // packets of a direction are lost
	faultLose   = "lose"   // some packets are
	faultReject = "reject" // packets to the server are answered by a reset
	faultLink   = "link"   // the network interface is down
	faultClose  = "close"  // the client's kernel ends its connections
	faultStop   = "stop"   // the server's process stands still
	faultKill   = "kill"   // the server's process is no more
	faultReload = "reload" // nginx loads its configuration
	faultToxic  = "toxic"  // toxiproxy does something
)

// Which packets faultDrop drops.
const (
	dropBoth         = "both"
	dropToServer     = "to-server"
	dropToClient     = "to-client"
	dropDataToServer = "data-to-server" // bare acknowledgements pass
)

// The toxics of toxiproxy.
const (
	toxicTimeout   = "timeout"
	toxicReset     = "reset_peer"
	toxicLatency   = "latency"
	toxicBandwidth = "bandwidth"
)

var errToxic = errors.New("want one of " + strings.Join([]string{toxicTimeout, toxicReset, toxicLatency, toxicBandwidth}, ", "))

// faultForm is what a kind of fault wants.
type faultForm struct {
	read func(f *faultStep, args []string) error
	at   string // where it acts: the network, the process, the proxy, nginx
}

const (
	onNetwork = "network"
	onProcess = "process"
	onProxy   = "proxy"
	onNginx   = "nginx"
)

var faultForms = map[string]faultForm{
	faultDrop:   {(*faultStep).readDrop, onNetwork},
	faultLose:   {(*faultStep).readLose, onNetwork},
	faultReject: {plain, onNetwork},
	faultLink:   {word("down"), onNetwork},
	faultClose:  {word("sockets"), onNetwork},
	faultStop:   {(*faultStep).readServer, onProcess},
	faultKill:   {(*faultStep).readServer, onProcess},
	faultReload: {plain, onNginx},
	faultToxic:  {(*faultStep).readToxic, onProxy},
}

func (p *parser) faultStep(args []string) (action, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("want one of %s", strings.Join(sortedKeys(faultForms), ", "))
	}
	form, ok := faultForms[args[0]]
	if !ok {
		return nil, fmt.Errorf("%q: want one of %s", args[0], strings.Join(sortedKeys(faultForms), ", "))
	}
	f := faultStep{kind: args[0]}
	if err := form.read(&f, args[1:]); err != nil {
		return nil, fmt.Errorf("%s: %w", f.kind, err)
	}
	s := &p.script
	switch {
	case form.at == onProxy && !s.Proxy:
		return nil, errors.New(`a toxic needs toxiproxy between client and server; say "proxy"`)
	case form.at == onNginx && s.Server.Kind != ServerNginx:
		return nil, errors.New(`only nginx is reloaded; say "server nginx"`)
	case (form.at == onNetwork || form.at == onProcess) && s.Server.Kind != ServerGRPC:
		return nil, fmt.Errorf("%s acts on %q only", f.kind, "server grpc")
	case f.kind == faultClose && s.Proxy:
		return nil, errors.New("close sockets would hit toxiproxy's as well")
	case f.server >= max(s.Server.Count, 1):
		return nil, fmt.Errorf("there is no server %d", f.server+1)
	}
	p.faults++
	p.active++
	return f, nil
}

func plain(_ *faultStep, args []string) error { return none(args) }

// word wants one certain word, for the sake of whoever reads the script.
func word(want string) func(*faultStep, []string) error {
	return func(_ *faultStep, args []string) error {
		if len(args) != 1 || args[0] != want {
			return fmt.Errorf("want %q after it", want)
		}
		return nil
	}
}

func (f *faultStep) readDrop(args []string) error {
	directions := []string{dropBoth, dropToServer, dropToClient, dropDataToServer}
	if len(args) != 1 || !slices.Contains(directions, args[0]) {
		return fmt.Errorf("want one of %s", strings.Join(directions, ", "))
	}
	f.arg = args[0]
	return nil
}

func (f *faultStep) readLose(args []string) error {
	if len(args) != 1 || !strings.HasSuffix(args[0], "%") {
		return errors.New(`want how much, such as "5%"`)
	}
	n, err := between(strings.TrimSuffix(args[0], "%"), 1, 99)
	f.amount = float64(n)
	return err
}

// readServer wants "server", or "server 2".
func (f *faultStep) readServer(args []string) error {
	if len(args) == 0 || len(args) > 2 || args[0] != "server" {
		return errors.New(`want "server", and its number if there are several`)
	}
	if len(args) == 1 {
		return nil
	}
	n, err := between(args[1], 1, 8)
	f.server = n - 1
	return err
}

// readToxic wants the name of one of toxiproxy's toxics and its attribute.
func (f *faultStep) readToxic(args []string) (err error) {
	if len(args) == 0 {
		return errToxic
	}
	f.arg = args[0]
	args = args[1:]
	switch f.arg {
	case toxicTimeout, toxicReset:
		return none(args)
	case toxicLatency:
		if len(args) != 1 {
			return errors.New(`want the delay after it, such as "200ms", which is for each direction`)
		}
		f.delay, err = duration(args[0])
		return err
	case toxicBandwidth:
		if len(args) != 1 {
			return errors.New("want kilobytes per second after it")
		}
		n, err := between(args[0], 1, 1<<20)
		f.amount = float64(n)
		return err
	default:
		return fmt.Errorf("%q: %w", f.arg, errToxic)
	}
}

// What can be expected. README.md says what each means.
const (
	expectDetect   = "detect"
	expectRecover  = "recover"
	expectFailFast = "failfast"
	expectFailed   = "failed"
	expectEvicted  = "evicted"
	expectLent     = "lent"
	expectDials    = "dials"
	expectTail     = "p99.9"
	expectCodes    = "codes"
)

func (p *parser) expectStep(args []string) (action, error) {
	if len(args) < 2 {
		return nil, errors.New(`want what, "<=" or "=", and how much`)
	}
	p.expect++
	step := expectStep{text: strings.Join(args, " "), what: args[0]}
	if step.what == expectCodes {
		step.codes = args[1:]
		return step, nil
	}
	if len(args) < 3 || (args[1] != "<=" && args[1] != "=") {
		return nil, fmt.Errorf(`%s: want "<=" or "=", and how much`, step.what)
	}
	step.exact = args[1] == "="
	err := step.bound(p, args[2:])
	return step, err
}

// bound reads how much.
func (e *expectStep) bound(p *parser, args []string) (err error) {
	switch e.what {
	case expectDetect, expectRecover, expectFailFast:
		if p.faults == 0 {
			return fmt.Errorf("%s: no fault stands before it", e.what)
		}
		if e.exact {
			return fmt.Errorf(`%s: want "<=" and a duration`, e.what)
		}
		e.duration, err = duration(args[0])
		args = args[1:]
	case expectFailed, expectEvicted, expectLent, expectDials:
		var n int
		n, err = between(args[0], 0, 1<<30)
		e.number = float64(n)
		args = args[1:]
	case expectTail:
		err = e.ratio(p, args)
		args = nil
	default:
		return fmt.Errorf("%q: want one of detect, recover, failfast, failed, evicted, lent, dials, p99.9, codes", e.what)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e.what, err)
	}
	return none(args)
}

// ratio reads how much slower than the control's the slowest calls may be.
func (e *expectStep) ratio(p *parser, args []string) error {
	if !p.script.Control || !p.calls {
		return errors.New(`want "control" and "calls" before it`)
	}
	if len(args) != 2 || args[1] != "control" || !strings.HasSuffix(args[0], "x") {
		return errors.New(`want a ratio to the control, such as "1.5x control"`)
	}
	ratio, err := strconv.ParseFloat(strings.TrimSuffix(args[0], "x"), 64)
	if err != nil || !(ratio > 0 && ratio < 1000) {
		return fmt.Errorf("%q: want a ratio such as 1.5x", args[0])
	}
	e.number = ratio
	return nil
}
