package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/ping"
	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// listenSystemd is the --listen for sockets that systemd passes.
const listenSystemd = "systemd"

// runProxy is the command "proxy".
func runProxy(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags, err := parseProxyFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		say(stdout, proxyHelp())
		return exitOK
	case err != nil:
		say(stderr, fmt.Sprintf("grpcpool proxy: %v; see \"grpcpool proxy --help\"\n", err))
		return exitMisuse
	}
	level := slog.LevelInfo
	if flags.verbose {
		level = slog.LevelDebug
	}
	flags.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	defer frugal()()
	if err := serveProxy(ctx, flags); err != nil {
		say(stderr, fmt.Sprintf("grpcpool %v\n", err))
		return exitFailed
	}
	return exitOK
}

// serveProxy runs until ctx ends.
func serveProxy(ctx context.Context, flags *proxyFlags) error {
	proxy.RegisterEncodings(strings.FieldsFunc(flags.encodings, func(r rune) bool { return r == ',' || r == ' ' })...)
	flags.Upstream = func() (*shared.Pool, error) { return proxyPool(flags) } //nolint:contextcheck // a pool outlives what it was made by
	listeners, err := proxyListeners(ctx, flags)
	if err != nil {
		return err
	}
	closeListeners := func() {
		for _, l := range listeners {
			_ = l.Close() // what matters is why they are not wanted
		}
	}
	server, err := proxy.New(flags.Config) //nolint:contextcheck // so does the one that a reload leaves behind
	if err != nil {
		closeListeners()
		return err
	}
	stopLive, err := live(ctx, flags, server)
	if err != nil {
		closeListeners()
		return errors.Join(err, server.Shutdown(ctx))
	}
	defer stopLive()
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		flags.Logger.Info("listening", "network", l.Addr().Network(), "address", l.Addr().String(), "to", flags.to)
		go func() { failed <- server.Serve(l) }()
	}
	notify(flags, daemon.SdNotifyReady)
	serveErr := attend(ctx, flags, server, listeners, failed)
	notify(flags, daemon.SdNotifyStopping)
	flags.Logger.Info("ending", "calls", server.Stats().Active, "drain", flags.drain)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), flags.drain)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		flags.Logger.Warn("not all calls came to their end", "why", err)
	}
	for range listeners {
		serveErr = errors.Join(serveErr, <-failed)
	}
	return serveErr
}

// attend reloads at SIGHUP, until ctx ends or a listener fails, whose error it
// puts back for the count.
func attend(ctx context.Context, flags *proxyFlags, server *proxy.Server, listeners []*proxy.Listener, failed chan error) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, hangup...)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			failed <- nil
			return err
		case <-hup:
			notify(flags, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
			if err := reloadProxy(flags, server, listeners); err != nil { //nolint:contextcheck // a pool outlives what it was made by
				flags.Logger.Error("not reloaded, all stays as it is", "why", err)
			} else {
				flags.Logger.Info("reloaded")
			}
			notify(flags, daemon.SdNotifyReady)
		}
	}
}

func reloadProxy(flags *proxyFlags, server *proxy.Server, listeners []*proxy.Listener) error {
	access := make([]proxy.Access, len(listeners))
	for i, l := range listeners {
		var err error
		if access[i], err = flags.accessOf(l.Addr().Network()); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
	}
	if err := server.Reload(); err != nil {
		return err
	}
	for i, l := range listeners {
		if err := l.Change(access[i]); err != nil {
			return err
		}
	}
	return nil
}

// proxyPool reads the certificates each time.
func proxyPool(flags *proxyFlags) (*shared.Pool, error) {
	flags.identityLog = flags.Logger.With("target", flags.to)
	factory, err := flags.factory(flags.to,
		grpcpool.WithDialOptions(proxy.DialOptions()...),
		grpcpool.WithDialOptions(scale.WithMaxConnections(flags.maxConns)),
		grpcpool.WithPing(ping.Alive), // the server's answers to calls are for clients to judge
		grpcpool.WithLogger(flags.Logger))
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return shared.New(factory, flags.idle, shared.WithName("proxy"), shared.WithLogger(flags.Logger)), nil
}

// proxyListeners listens where the flags say, or nowhere.
func proxyListeners(ctx context.Context, flags *proxyFlags) (all []*proxy.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				_ = l.Close() // what matters is err
			}
			all = nil
		}
	}()
	for _, where := range flags.listen {
		if where == listenSystemd {
			inherited, err := inheritProxyListeners(flags)
			all = append(all, inherited...)
			if err != nil {
				return all, err
			}
			continue
		}
		network, address, err := proxy.ParseListen(where)
		if err != nil {
			return all, err
		}
		access, err := flags.accessOf(network)
		if err != nil {
			return all, fmt.Errorf("proxy: %w", err)
		}
		l, err := proxy.Listen(ctx, network, address, access)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

// inheritProxyListeners takes the sockets that systemd passes.
func inheritProxyListeners(flags *proxyFlags) ([]*proxy.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("proxy: the sockets of systemd: %w", err)
	}
	all := make([]*proxy.Listener, 0, len(passed))
	for _, p := range passed {
		if p == nil {
			return all, errors.New("proxy: systemd passed something that is no stream socket")
		}
		access, err := flags.accessOf(p.Addr().Network())
		if err != nil {
			return all, fmt.Errorf("proxy: %w", err)
		}
		if u, ok := p.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the file is systemd's
		}
		l, err := proxy.Inherit(p, access)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, errors.New("proxy: --listen systemd: it passed no sockets (LISTEN_FDS)")
	}
	return all, nil
}

// notify tells systemd, if it wants to know (NOTIFY_SOCKET).
func notify(flags *proxyFlags, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		flags.Logger.Warn("systemd could not be told", "why", err)
	}
}
