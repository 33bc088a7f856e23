package faults

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// callTimeout is the deadline of a call for which the script names none: so long
// that it is the library that ends a call on a dead connection, not the caller.
const callTimeout = 15 * time.Second

// inFull stands before what holds when somebody measures.
const inFull = "full"

// What a script can do.
type (
	// connectStep makes one call, which opens a connection.
	connectStep struct{}

	// callsStep begins a unary call every so often, whether or not those before
	// it have ended.
	callsStep struct{ every, timeout time.Duration }

	// callStep begins one unary call.
	callStep struct{ timeout time.Duration }

	// callersStep begins so many callers, each at a random moment of over, who make the
	// next call when the last has ended.
	callersStep struct {
		n    int
		over time.Duration
	}

	// restartsStep stops the server and starts it again, some times over.
	restartsStep struct {
		n, full int
		down    time.Duration
	}

	// holdStep opens streams on which nothing is sent.
	holdStep struct{ n int }

	// streamStep opens a stream on which the server sends a small message every
	// so often.
	streamStep struct{ every time.Duration }

	// waitStep lets time pass; when measuring in full, perhaps more of it.
	waitStep struct{ d, full time.Duration }

	// awaitStep lets time pass until plain has completed so many calls since the fault.
	awaitStep struct{ n, full int }

	// healStep ends every fault.
	healStep struct{}
)

// steps read the lines that do something.
var steps = map[string]func(*parser, []string) (action, error){
	"connect":  func(_ *parser, args []string) (action, error) { return connectStep{}, none(args) },
	"call":     (*parser).callStep,
	"calls":    (*parser).callsStep,
	"callers":  (*parser).callersStep,
	"hold":     (*parser).holdStep,
	"stream":   (*parser).streamStep,
	"wait":     (*parser).waitStep,
	"await":    (*parser).awaitStep,
	"restarts": (*parser).restartsStep,
	"fault":    (*parser).faultStep,
	"heal":     (*parser).healStep,
	"expect":   (*parser).expectStep,
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

func (p *parser) callStep(args []string) (action, error) {
	step := callStep{timeout: callTimeout}
	err := pairs(args, map[string]func(string) error{"timeout": into(&step.timeout, duration)})
	return step, err
}

func (p *parser) callersStep(args []string) (action, error) {
	if len(args) == 0 {
		return nil, errors.New("want how many callers")
	}
	n, err := between(args[0], 1, 1000)
	if err != nil {
		return nil, err
	}
	p.calls = true
	step := callersStep{n: n}
	err = pairs(args[1:], map[string]func(string) error{"over": into(&step.over, duration)})
	return step, err
}

func (p *parser) restartsStep(args []string) (action, error) {
	if p.script.Server.Kind != ServerGRPC || !p.calls {
		return nil, errors.New(`want "server grpc", and "calls" before it`)
	}
	if len(args) == 0 {
		return nil, errors.New("want how many restarts")
	}
	n, err := between(args[0], 1, 100)
	if err != nil {
		return nil, err
	}
	step := restartsStep{n: n, full: n}
	err = pairs(args[1:], map[string]func(string) error{
		inFull: into(&step.full, count(100)),
		"for":  into(&step.down, duration),
	})
	if err == nil && step.down == 0 {
		err = errors.New(`want "for" and how long the server is away, such as "for 50ms"`)
	}
	p.restarts = true
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
	return step, pairs(args[1:], map[string]func(string) error{inFull: into(&step.full, duration)})
}

func (p *parser) awaitStep(args []string) (action, error) {
	if !p.script.Plain || !p.calls || p.faults == 0 {
		return nil, errors.New("want plain among the clients, calls and a fault before it")
	}
	if len(args) == 0 {
		return nil, errors.New("want how many calls")
	}
	n, err := between(args[0], 1, 10_000)
	if err != nil {
		return nil, err
	}
	step := awaitStep{n, n}
	err = pairs(args[1:], map[string]func(string) error{inFull: into(&step.full, count(10_000))})
	return step, err
}

// count reads a number from 1 up to most.
func count(most int) func(string) (int, error) {
	return func(text string) (int, error) { return between(text, 1, most) }
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
