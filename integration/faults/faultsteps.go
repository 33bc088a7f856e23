package faults

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The kinds of faults.
const (
	faultDrop   = "drop"   // packets of a direction are lost
	faultLose   = "lose"   // some packets are
	faultReject = "reject" // packets to the server are answered by a reset
	faultLink   = "link"   // the network interface is down
	faultClose  = "close"  // the client's kernel ends its connections
	faultStop   = "stop"   // the server's process stands still, or the client's
	faultKill   = "kill"   // the server's process is no more
	faultReload = "reload" // nginx loads its configuration
	faultToxic  = "toxic"  // toxiproxy does something

	faultThrottle = "throttle" // the server's process hardly gets a processor
	faultHang     = "hang"     // the server's health service does not answer
	faultBurn     = "burn"     // goroutines of the client's process compute
	faultFreeze   = "freeze"   // no goroutine of the client's process runs
)

// Which packets faultDrop drops.
const (
	dropBoth         = "both"
	dropToServer     = "to-server"
	dropToClient     = "to-client"
	dropDataToServer = "data-to-server" // bare acknowledgements pass
	dropServer       = "server"         // of one server, both ways
	dropConnections  = "connections"    // of the connections that there are, both ways; new ones pass
)

// stopClient has faultStop stop this process.
const stopClient = "client"

// The toxics of toxiproxy.
const (
	toxicTimeout   = "timeout"
	toxicReset     = "reset_peer"
	toxicLatency   = "latency"
	toxicBandwidth = "bandwidth"
)

var errToxic = errors.New("want one of " + strings.Join([]string{toxicTimeout, toxicReset, toxicLatency, toxicBandwidth}, ", "))

// faultStep injects a fault.
type faultStep struct {
	kind   string
	arg    string        // a direction or the name of a toxic
	amount float64       // percent, kilobytes per second, or goroutines
	delay  time.Duration // of a toxic
	server int           // counted from 0
	lasts  time.Duration // 0: until it is healed
}

// faultForm is what a kind of fault wants.
type faultForm struct {
	read func(f *faultStep, args []string) error
	at   string // where it acts: the network, the process, the proxy, nginx, the client
}

const (
	onNetwork = "network"
	onProcess = "process"
	onProxy   = "proxy"
	onNginx   = "nginx"
	onClient  = "client"
)

var faultForms = map[string]faultForm{
	faultDrop:   {(*faultStep).readDrop, onNetwork},
	faultLose:   {(*faultStep).readLose, onNetwork},
	faultReject: {plain, onNetwork},
	faultLink:   {word("down"), onNetwork},
	faultClose:  {word("sockets"), onNetwork},
	faultStop:   {(*faultStep).readStop, onProcess},
	faultKill:   {(*faultStep).readServer, onProcess},
	faultReload: {plain, onNginx},
	faultToxic:  {(*faultStep).readToxic, onProxy},

	faultThrottle: {(*faultStep).readServer, onProcess},
	faultHang:     {word("health"), onProcess},
	faultBurn:     {(*faultStep).readBurn, onClient},
	faultFreeze:   {word("client"), onClient},
}

// at is where f acts.
func (f *faultStep) at() string {
	if f.kind == faultStop && f.arg == stopClient {
		return onClient
	}
	return faultForms[f.kind].at
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
	args, err := f.readLasts(args[1:])
	if err == nil {
		err = form.read(&f, args)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.kind, err)
	}
	if err := f.suits(&p.script); err != nil {
		return nil, err
	}
	p.faults++
	if f.lasts == 0 {
		p.active++
	}
	return f, nil
}

// suits finds what the script lacks, or has too much, for the fault.
func (f *faultStep) suits(s *Script) error {
	at := f.at()
	switch {
	case at == onProxy && !s.Proxy:
		return errors.New(`a toxic needs toxiproxy between client and server; say "proxy"`)
	case at == onNginx && s.Server.Kind != ServerNginx:
		return errors.New(`only nginx is reloaded; say "server nginx"`)
	case at == onNetwork && s.Server.Kind != ServerGRPC:
		return fmt.Errorf("%s acts on %q only", f.kind, "server grpc")
	case at == onClient && f.kind != faultBurn && f.lasts == 0:
		return fmt.Errorf(`%s: want "for" and how long, nothing else ends it`, f.kind)
	case s.Proxy && (f.kind == faultClose || f.arg == dropConnections):
		return errors.New("the connections would be toxiproxy's as well")
	case f.server >= max(s.Server.Count, 1):
		return fmt.Errorf("there is no server %d", f.server+1)
	default:
		return nil
	}
}

// readLasts reads "for 2s" at the end.
func (f *faultStep) readLasts(args []string) ([]string, error) {
	i := len(args) - 2
	if i < 0 || args[i] != "for" {
		return args, nil
	}
	d, err := duration(args[i+1])
	f.lasts = d
	return args[:i], err
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
	if len(args) > 0 && args[0] == dropServer {
		f.arg = dropServer
		return f.readServer(args)
	}
	directions := []string{dropBoth, dropToServer, dropToClient, dropDataToServer, dropConnections}
	if len(args) != 1 || !slices.Contains(directions, args[0]) {
		return fmt.Errorf("want one of %s, or a server", strings.Join(directions, ", "))
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

// readBurn wants how many goroutines compute.
func (f *faultStep) readBurn(args []string) error {
	if len(args) != 1 {
		return errors.New("want how many goroutines compute")
	}
	n, err := between(args[0], 1, 10_000)
	f.amount = float64(n)
	return err
}

// readStop wants "client", or a server.
func (f *faultStep) readStop(args []string) error {
	if len(args) == 1 && args[0] == stopClient {
		f.arg = stopClient
		return nil
	}
	return f.readServer(args)
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
