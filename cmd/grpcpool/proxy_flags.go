package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
)

const proxyAbout = `grpcpool proxy shares a pool among programs that cannot keep connections open
themselves: PHP-FPM, Python before it forks, short-lived commands, cron jobs.

It listens on a Unix socket or on loopback, and forwards every gRPC call, unary
or streaming, to one server. All calls share the connections of one pool: it
opens them on demand, as many as the server's stream limit requires, tests
them, replaces those that fail, and closes them when idle. Messages are neither
decoded nor decompressed. Deadlines, metadata, trailers, status details,
cancellation and flow control pass through; headers of a single hop
(user-agent, authority, proxy-authorization) do not.
`

const proxyAccess = `Who may connect:
  unix:///path  processes of the proxy's own user, or of those in --allow-uid
  host:port     on loopback, calls with the token of --token-file in their
                metadata, as "proxy-authorization: Bearer <token>"; on any
                address, clients with a certificate (--listen-cert,
                --listen-key, --listen-ca)
  systemd       sockets passed by systemd (LISTEN_FDS); the same rules apply

Credentials in a call's metadata are forwarded to the server. Some are bound to
the name that the client calls (gRPC's self-signed JWTs). For these, set the
server's name as the client's authority, and include it in the certificate of
--listen-cert.

Signals:
  HUP        reload certificates, keys and the token; running calls continue
             (--cert, --key and --ca are also reloaded when they change)
  TERM, INT  accept no more calls and wait for running ones, up to --drain

Environment:
  GOMAXPROCS, GOGC  used if set. Otherwise the proxy starts on one core, uses
                    more under load, and collects garbage every 8 MB or so.
`

const proxyStatus = `Exit status:
  0  it was shut down by a signal
  1  it could not listen, or a socket failed
  2  a flag is wrong
`

const proxyNext = `Examples:
  grpcpool proxy --listen unix:///run/api.sock --to dns:///api:443 \
      --cert c.pem --key k.pem --ca ca.pem
  grpcurl -plaintext unix:///run/api.sock list
  grpcpool proxy --listen 127.0.0.1:9000 --token-file token --to dns:///api:443
`

// proxyFlags is the proxy's command line.
type proxyFlags struct {
	targetFlags
	proxy.Config // its limits

	to         string
	listen     listFlag
	socketMode string
	allowUID   listFlag
	tokenFile  string
	listenCert string
	listenKey  string
	listenCA   string
	encodings  string
	live       string
	idle       time.Duration
	drain      time.Duration
	maxConns   int
	verbose    bool
}

func newProxyFlags() (*flag.FlagSet, *proxyFlags) {
	f := &proxyFlags{}
	fs := newFlagSet("proxy")
	f.register(fs)
	fs.StringVar(&f.to, "to", "", "`server` to forward calls to, host:port or a gRPC target such as dns:///host:port; required")
	fs.Var(&f.listen, "listen", "`address` to listen on, unix:///path, host:port or systemd; required, may be repeated")
	fs.StringVar(&f.socketMode, "socket-mode", "0600", "file `mode` of Unix sockets, in octal")
	fs.Var(&f.allowUID, "allow-uid", "`uid` whose processes may connect to Unix sockets, instead of the proxy's own; may be repeated; --socket-mode must let them in too")
	fs.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that calls over TCP must send, at least 16 bytes")
	fs.StringVar(&f.listenCert, "listen-cert", "", "PEM `file` with the proxy's own server certificate, for TCP")
	fs.StringVar(&f.listenKey, "listen-key", "", "PEM `file` with the private key of --listen-cert")
	fs.StringVar(&f.listenCA, "listen-ca", "", "PEM `file` with the CAs trusted to sign client certificates")
	fs.StringVar(&f.encodings, "encodings", strings.Join(proxy.DefaultEncodings(), ","), "comma-separated `names` of the compressions that are forwarded; others are refused")
	fs.StringVar(&f.HealthService, "health-service", "", "`name` of the service whose health checks the proxy answers for itself; it forwards all others")
	fs.StringVar(&f.live, "live", "", "loopback `address` to serve the pool's live page on, with /stats in JSON and /metrics for Prometheus")
	fs.DurationVar(&f.idle, "idle", 5*time.Minute, "close connections to the server after this time without calls; 0 means never")
	fs.DurationVar(&f.drain, "drain", 30*time.Second, "how long a shutdown waits for running calls")
	fs.IntVar(&f.maxConns, "max-connections", 10, "maximum `number` of connections to one address of the server")
	fs.IntVar(&f.MaxClients, "max-clients", 10_000, "maximum `number` of connections from clients; excess connections are closed")
	fs.IntVar(&f.MaxStreams, "max-streams", 10_000, "maximum `number` of concurrent calls; excess calls are refused")
	fs.IntVar(&f.MaxStreamsPerClient, "max-streams-per-client", 1_000, "maximum `number` of concurrent calls on a client's connection; excess calls wait in the client")
	fs.IntVar(&f.MaxMessage, "max-message", 64<<20, "maximum size of a message as sent, in `bytes`")
	fs.BoolVar(&f.verbose, "verbose", false, "also log failed calls and what the pool does")
	return fs, f
}

// parseProxyFlags returns flag.ErrHelp if help is requested.
func parseProxyFlags(args []string) (*proxyFlags, error) {
	fs, f := newProxyFlags()
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, fmt.Errorf("unexpected argument %q", rest[0])
	case f.to == "":
		return nil, errors.New("--to is required")
	case len(f.listen) == 0:
		return nil, errors.New("--listen is required, such as --listen unix:///run/api.sock")
	}
	for _, l := range f.listen {
		if l == listenSystemd {
			continue
		}
		if _, _, err := proxy.ParseListen(l); err != nil {
			return nil, err
		}
	}
	if err := f.checkRanges(); err != nil {
		return nil, err
	}
	if _, err := f.accessOf("unix"); err != nil {
		return nil, err
	}
	if n := countSet(f.listenCert, f.listenKey, f.listenCA); n != 0 && n != 3 {
		return nil, errors.New("--listen-cert, --listen-key and --listen-ca must be given together")
	}
	return f, firstOf(checkLive(f.live), f.check())
}

func (f *proxyFlags) checkRanges() error {
	return firstOf(
		checkRange("max-connections", f.maxConns, 1, 1000),
		checkRange("max-clients", f.MaxClients, 1, 10_000_000),
		checkRange("max-streams", f.MaxStreams, 1, 10_000_000),
		checkRange("max-streams-per-client", f.MaxStreamsPerClient, 1, 10_000_000),
		checkRange("max-message", f.MaxMessage, 1, 1<<30),
		checkRange("idle", f.idle, 0, 24*time.Hour),
		checkRange("drain", f.drain, 0, 24*time.Hour),
	)
}

func countSet(values ...string) int {
	n := 0
	for _, v := range values {
		if v != "" {
			n++
		}
	}
	return n
}

// accessOf reads the files that decide who may connect over a network.
func (f *proxyFlags) accessOf(network string) (proxy.Access, error) {
	if network == "unix" {
		return f.unixAccess()
	}
	access := proxy.Access{}
	if f.tokenFile != "" {
		data, err := os.ReadFile(f.tokenFile) //nolint:gosec // the user chose the file
		if err != nil {
			return access, fmt.Errorf("--token-file: %w", err)
		}
		access.Token = strings.TrimSpace(string(data))
		if access.Token == "" {
			return access, fmt.Errorf("--token-file: %s is empty", f.tokenFile)
		}
	}
	if f.listenCert != "" {
		pair, err := readKeyPair(f.listenCert, f.listenKey)
		if err != nil {
			return access, fmt.Errorf("--listen-cert and --listen-key: %w", err)
		}
		roots, err := readRoots(f.listenCA)
		if err != nil {
			return access, fmt.Errorf("--listen-ca: %w", err)
		}
		access.TLS = credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		})
	}
	return access, nil
}

func (f *proxyFlags) unixAccess() (proxy.Access, error) {
	access := proxy.Access{}
	mode, err := strconv.ParseUint(f.socketMode, 8, 32)
	if err != nil || mode > 0o777 || mode == 0 {
		return access, fmt.Errorf("--socket-mode is %q; it must be an octal mode such as 0600", f.socketMode)
	}
	access.Mode = fs.FileMode(mode)
	for _, text := range f.allowUID {
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return access, fmt.Errorf("--allow-uid is %q; it must be a numeric user ID", text)
		}
		access.UIDs = append(access.UIDs, uint32(uid))
	}
	return access, nil
}

func proxyHelp() string {
	fs, _ := newProxyFlags()
	return proxyAbout + "\nUsage:\n  grpcpool proxy --listen <address> --to <server> [flags]\n\n" +
		proxyAccess + "\nFlags:\n" + flagHelp(fs) + "\n" + proxyStatus + "\n" + proxyNext
}
