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

const proxyAbout = `grpcpool proxy lets programs share connections that cannot hold them themselves:
PHP-FPM, Python before it forks, short-lived commands, cron jobs.

It listens on a Unix socket, or on loopback, and passes every gRPC call on to one
server, unary or streaming, whatever the method, over the connections of one pool:
opened when they are first wanted, as many as the server's stream limit makes
necessary, tested, replaced when they fail, closed when nobody calls. Messages are
not decoded and not decompressed. Deadlines, metadata, trailers, status details,
cancellation and back-pressure pass; headers of one hop (user-agent, authority,
proxy-authorization) do not.
`

const proxyWho = `Who may call:
  unix:///path      processes of the user that the proxy runs as; --allow-uid names others
  host:port         calls with "proxy-authorization: Bearer <token>" in their metadata
                    (--token-file), on loopback only; or clients with a certificate
                    (--listen-cert, --listen-key, --listen-ca), on any address
  systemd           the sockets that systemd passes (LISTEN_FDS); the same rules apply

Credentials in a call's metadata pass to the server. Those that say whom they are for, in
the name that the client calls (gRPC's self-signed JWTs), need the server's name as the
client's authority, and in the certificate of --listen-cert.

Signals:
  HUP               read all certificates, keys and the token anew; calls under way go on
                    (--cert, --key and --ca are also read again when they change)
  TERM, INT         take no more calls and wait for those under way, up to --drain

Environment:
  GOMAXPROCS, GOGC  are obeyed; without them it begins on one core, takes more when it is
                    busy and gives them back, and lets some 8 MB of garbage gather
`

const proxyStatus = `Exit status:
  0  it was told to end
  1  it could not listen, or lost a socket
  2  a flag is wrong
`

const proxyNext = `Examples:
  grpcpool proxy --listen unix:///run/api.sock --to dns:///api:443 --cert c.pem --key k.pem --ca ca.pem
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
	fs.StringVar(&f.to, "to", "", "the `server`: host:port or a gRPC target such as dns:///host:port; needed")
	fs.Var(&f.listen, "listen", "`where` to listen: unix:///path, host:port or systemd; needed, may be given again")
	fs.StringVar(&f.socketMode, "socket-mode", "0600", "file `mode` of Unix sockets, octal")
	fs.Var(&f.allowUID, "allow-uid", "`uid` of processes that may connect to Unix sockets, instead of the proxy's own;\nmay be given again; they need access by --socket-mode too")
	fs.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that calls over TCP must bring, 16 bytes or more")
	fs.StringVar(&f.listenCert, "listen-cert", "", "PEM `file` with the proxy's own server certificate, for TCP")
	fs.StringVar(&f.listenKey, "listen-key", "", "PEM `file` with the key of --listen-cert")
	fs.StringVar(&f.listenCA, "listen-ca", "", "PEM `file` with the certificate authorities of clients")
	fs.StringVar(&f.encodings, "encodings", strings.Join(proxy.DefaultEncodings(), ","), "`names` of the compressions that pass, with commas between; calls in others are refused")
	fs.StringVar(&f.HealthService, "health-service", "", "`name` under which grpc.health.v1 answers for the proxy itself; others pass through")
	fs.StringVar(&f.live, "live", "", "loopback `address` for a live page of the pool, /stats in JSON and /metrics for Prometheus")
	fs.DurationVar(&f.idle, "idle", 5*time.Minute, "close connections to the server after this time without calls; 0: never")
	fs.DurationVar(&f.drain, "drain", 30*time.Second, "how long to wait for calls when told to end")
	fs.IntVar(&f.maxConns, "max-connections", 10, "`connections` to one address of the server, at most")
	fs.IntVar(&f.MaxClients, "max-clients", 10_000, "`connections` from clients at a time; more are closed")
	fs.IntVar(&f.MaxStreams, "max-streams", 10_000, "`calls` at a time")
	fs.IntVar(&f.MaxStreamsPerClient, "max-streams-per-client", 1_000, "`calls` at a time on one client's connection; more wait in the client")
	fs.IntVar(&f.MaxMessage, "max-message", 64<<20, "`bytes` of one message as it is sent")
	fs.BoolVar(&f.verbose, "verbose", false, "log calls that fail, and what the pool does")
	return fs, f
}

// parseProxyFlags returns flag.ErrHelp if help is asked for.
func parseProxyFlags(args []string) (*proxyFlags, error) {
	fs, f := newProxyFlags()
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, fmt.Errorf("takes no arguments, got %q", rest[0])
	case f.to == "":
		return nil, errors.New("--to is missing: which server?")
	case len(f.listen) == 0:
		return nil, errors.New("--listen is missing: such as unix:///run/api.sock")
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
		return nil, errors.New("--listen-cert, --listen-key and --listen-ca belong together")
	}
	return f, errors.Join(checkLive(f.live), f.check())
}

func (f *proxyFlags) checkRanges() error {
	return errors.Join(
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

// accessOf reads what decides who may be a client on a network.
func (f *proxyFlags) accessOf(network string) (proxy.Access, error) {
	if network == "unix" {
		return f.unixAccess()
	}
	access := proxy.Access{}
	if f.tokenFile != "" {
		data, err := os.ReadFile(f.tokenFile) //nolint:gosec // the user names it
		if err != nil {
			return access, fmt.Errorf("--token-file: %w", err)
		}
		access.Token = strings.TrimSpace(string(data))
		if access.Token == "" {
			return access, fmt.Errorf("--token-file: %s is empty", f.tokenFile)
		}
	}
	if f.listenCert != "" {
		pair, err := tls.LoadX509KeyPair(f.listenCert, f.listenKey)
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
		return access, fmt.Errorf("--socket-mode is %q, want an octal mode such as 0600", f.socketMode)
	}
	access.Mode = fs.FileMode(mode)
	for _, text := range f.allowUID {
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return access, fmt.Errorf("--allow-uid is %q, want the number of a user", text)
		}
		access.UIDs = append(access.UIDs, uint32(uid))
	}
	return access, nil
}

func proxyHelp() string {
	fs, _ := newProxyFlags()
	return proxyAbout + "\nUsage:\n  grpcpool proxy --listen <where> --to <server> [flags]\n\n" +
		proxyWho + "\nFlags:\n" + flagHelp(fs) + "\n" + proxyStatus + "\n" + proxyNext
}
