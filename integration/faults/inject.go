//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/davidwartell/go-grpcpool/scale"
)

// inject begins a fault.
func (w *world) inject(f faultStep) error {
	bad := w.connections(f)
	var seen <-chan time.Time
	if f.kind == faultKill || f.kind == faultClose {
		var err error
		if seen, err = witness(w.servers[f.server].config.Addr); err != nil {
			return err
		}
	}
	begin, err := w.prepare(f)
	if err != nil {
		return err
	}
	w.fault = faultTimes{bad: bad, begun: time.Now()}
	w.fault.at, err = begin()
	w.logf("the fault is there, which took %v", time.Since(w.fault.at).Round(time.Microsecond))
	if err == nil && seen != nil {
		if w.fault.at = <-seen; w.fault.at.IsZero() {
			return errors.New("the fault did not end a plain TCP connection")
		}
	}
	if err == nil { // on a busy machine it takes a while until commands wait
		w.healing.cancel()
		w.healing, err = w.network.prepareHeal()
	}
	if err == nil && f.lasts > 0 && f.at() != onClient { // those of the client are over by then
		time.Sleep(time.Until(w.fault.at.Add(f.lasts)))
		err = w.heal()
	}
	if err == nil && f.lasts > 0 {
		if w.fault.healed.IsZero() {
			w.fault.healed = time.Now()
		}
	}
	return err
}

// prepare makes a fault ready.
func (w *world) prepare(f faultStep) (beginning, error) {
	if f.at() == onNetwork {
		return w.network.prepare(f, w.ports(f))
	}
	return func() (time.Time, error) { return time.Now(), w.act(f) }, nil
}

// ports are those that a fault of the network hits.
func (w *world) ports(f faultStep) (ports []string) {
	var addrs []string
	switch f.arg {
	case dropServer:
		addrs = []string{w.servers[f.server].config.Addr}
	case dropConnections:
		addrs = append(w.connections(f), w.plain.connections()...)
	}
	for _, addr := range addrs {
		if _, port, err := net.SplitHostPort(addr); err == nil {
			ports = append(ports, port)
		}
	}
	return ports
}

// act does what makes a fault that is not the network's.
func (w *world) act(f faultStep) error {
	switch f.at() {
	case onClient:
		return w.starve(f)
	case onProxy:
		return w.proxy.inject(f)
	case onNginx:
		w.fronts[0].Signal(syscall.SIGHUP)
		return nil
	default:
		server := w.servers[f.server]
		switch f.kind {
		case faultStop:
			return server.signal(true)
		case faultThrottle:
			return server.throttle(w.cgroup)
		case faultHang:
			return server.mute(true)
		}
		server.kill()
		return nil
	}
}

// starve keeps this process from running. What lasts so long is over when it returns.
func (w *world) starve(f faultStep) error {
	switch f.kind {
	case faultStop:
		return stopSelf(f.lasts)
	case faultFreeze:
		return freeze(f.lasts)
	default:
		w.burning = burn(int(f.amount))
		if f.lasts > 0 {
			time.Sleep(f.lasts)
			w.burning.end()
		}
		return nil
	}
}

// witness opens a plain TCP connection to a server and tells when it ends: a process
// that has been told to die, and a command that has been started, end connections
// later. It is the zero time if the connection lives on.
func witness(addr string) (<-chan time.Time, error) {
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("faults: %w", err)
	}
	seen := make(chan time.Time, 1)
	_ = conn.SetReadDeadline(time.Now().Add(settles))
	go func() {
		_, err := io.Copy(io.Discard, conn)
		now := time.Now()
		_ = conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			now = time.Time{}
		}
		seen <- now
	}()
	return seen, nil
}

// connections are those that f would hit now.
func (w *world) connections(f faultStep) []string {
	only := "" // hits connections to any address
	switch at := f.at(); {
	case at == onClient:
		return nil
	case at == onProxy:
		only = w.proxy.addr()
	case (at == onProcess || f.arg == dropServer) && w.proxy == nil:
		only = w.servers[f.server].config.Addr
	}
	var local []string
	for _, c := range connections(w.load.client.inside()) {
		if only == "" || c.Remote == only {
			local = append(local, c.Local)
		}
	}
	return local
}

func connections(inside scale.Channel) []scale.Connection {
	var all []scale.Connection
	for _, s := range inside.Subchannels {
		all = append(all, s.Connections...)
	}
	return all
}

// heal ends every fault. A server that was killed is there again when it listens,
// everything else at the moment when it is told.
func (w *world) heal() error {
	w.dials.end()
	w.burning.end()
	w.putLate()
	if w.healing == nil { // the soak does not make it ready
		var err error
		if w.healing, err = w.network.prepareHeal(); err != nil {
			return err
		}
	}
	var err error
	healed := time.Now()
	for _, server := range w.servers {
		restarts := server.cmd == nil
		err = errors.Join(err, server.heal())
		if restarts {
			healed = time.Now()
		}
	}
	if w.proxy != nil {
		w.proxy.heal()
	}
	_, gone := w.healing.act()
	w.healing = nil
	w.network.healed()
	w.fault.healed = healed
	w.logf("the fault is gone, which took %v", time.Since(healed).Round(time.Microsecond))
	return errors.Join(err, gone)
}
