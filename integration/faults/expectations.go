package faults

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What can be expected. README.md says what each means.
const (
	expectDetect    = "detect"
	expectTold      = "told"
	expectRecover   = "recover"
	expectReturns   = "returns"
	expectFirst     = "first"
	expectFailFast  = "failfast"
	expectFailed    = "failed"
	expectEnded     = "ended"
	expectEvicted   = "evicted"
	expectLent      = "lent"
	expectPut       = "put"
	expectDials     = "dials"
	expectConnects  = "connects"
	expectProbes    = "probes"
	expectOthers    = "others"
	expectCompleted = "completed"
	expectTail      = "p99.9"
	expectCodes     = "codes"
)

// Kinds of figures.
var (
	expectsTime  = []string{expectDetect, expectTold, expectRecover, expectReturns, expectFirst, expectFailFast}
	expectsCount = []string{
		expectFailed, expectEnded, expectEvicted, expectLent, expectPut, expectDials, expectConnects, expectProbes, expectOthers,
	}
	expectsRatio = []string{expectCompleted, expectTail}
)

// expectStep checks a figure.
type expectStep struct {
	text     string // as written
	what     string
	exact    bool          // "=" instead of "<="
	number   float64       // a count, or a ratio
	full     float64       // the count when measuring
	plain    bool          // plain's count is the bound
	duration time.Duration // 0: number counts
	codes    []string
}

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
	operators := []string{"<=", "="}
	if step.what == expectCompleted {
		operators = []string{">="}
	}
	if len(args) < 3 || !slices.Contains(operators, args[1]) {
		return nil, fmt.Errorf(`%s: want "%s", and how much`, step.what, strings.Join(operators, `" or "`))
	}
	step.exact = args[1] == "="
	if err := step.bound(p, args[2:]); err != nil {
		return nil, fmt.Errorf("%s: %w", step.what, err)
	}
	return step, nil
}

// bound reads how much.
func (e *expectStep) bound(p *parser, args []string) error {
	switch {
	case slices.Contains(expectsTime, e.what):
		return e.time(p, args)
	case slices.Contains(expectsCount, e.what):
		return e.count(p, args)
	case slices.Contains(expectsRatio, e.what):
		return e.ratio(p, args)
	default:
		return fmt.Errorf("want one of %s, %s",
			strings.Join(slices.Concat(expectsTime, expectsCount, expectsRatio), ", "), expectCodes)
	}
}

func (e *expectStep) time(p *parser, args []string) (err error) {
	switch {
	case e.what == expectReturns && !p.restarts:
		return errors.New(`want "restarts" before it`)
	case e.what != expectReturns && p.faults == 0:
		return errors.New("no fault stands before it")
	case e.exact:
		return errors.New(`want "<=" and a duration`)
	}
	if e.duration, err = duration(args[0]); err != nil {
		return err
	}
	return none(args[1:])
}

func (e *expectStep) count(p *parser, args []string) error {
	if args[0] == ClientPlain {
		if e.plain = e.what == expectFailed && !e.exact && p.script.Plain; !e.plain {
			return errors.New(`only "failed <= plain" compares with it, and wants it among the clients`)
		}
		return none(args[1:])
	}
	number := func(to *float64) func(string) error {
		return into(to, func(text string) (float64, error) {
			n, err := between(text, 0, 1<<30)
			return float64(n), err
		})
	}
	if err := number(&e.number)(args[0]); err != nil {
		return err
	}
	e.full = e.number
	if (e.what == expectPut || e.what == expectConnects) && p.faults == 0 {
		return errors.New("no fault stands before it")
	}
	if (e.what == expectProbes || e.what == expectOthers) && p.script.Server.Kind != ServerGRPC {
		return errors.New(`want "server grpc", which counts them`)
	}
	if len(args) > 1 && args[1] != inFull {
		return none(args[1:])
	}
	return pairs(args[1:], map[string]func(string) error{inFull: number(&e.full)})
}

// ratio reads how much slower than the control's the slowest calls may be, or what
// share of plain's calls must be completed.
func (e *expectStep) ratio(p *parser, args []string) error {
	to, there := "control", p.script.Control
	if e.what == expectCompleted {
		to, there = ClientPlain, p.script.Plain
	}
	if !there || !p.calls {
		return fmt.Errorf(`want %q and "calls" before it`, to)
	}
	if len(args) != 2 || args[1] != to || !strings.HasSuffix(args[0], "x") {
		return fmt.Errorf(`want a ratio to the %[1]s, such as "1.5x %[1]s"`, to)
	}
	ratio, err := strconv.ParseFloat(strings.TrimSuffix(args[0], "x"), 64)
	if err != nil || !(ratio > 0 && ratio < 1000) {
		return fmt.Errorf("%q: want a ratio such as 1.5x", args[0])
	}
	e.number = ratio
	return nil
}
