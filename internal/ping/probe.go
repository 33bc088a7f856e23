// Package ping finds out what there is to know of a gRPC server from outside, and
// pings it through a pool.
//
//	probe.go    one connection of its own: addresses, TLS, HTTP/2 settings, PING
//	explain.go  why a connection failed, in one line, and what to do
//	run.go      pings through a pool, and what they come to
package ping

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// Findings are what one connection to the server shows.
type Findings struct {
	Addresses []string `json:"addresses"`     // what the name resolves to
	Connected string   `json:"connected"`     // the address that answered
	Connect   float64  `json:"connect_ms"`    // milliseconds until it did
	TLS       *TLS     `json:"tls,omitempty"` // nil without TLS
	HTTP2     *HTTP2   `json:"http2,omitempty"`
}

// TLS is what the handshake shows.
type TLS struct {
	Handshake   float64     `json:"handshake_ms"`
	Version     string      `json:"version"`
	Cipher      string      `json:"cipher"`
	Protocol    string      `json:"alpn"` // "h2" if the server speaks HTTP/2
	Certificate Certificate `json:"certificate"`
	ClientAsked bool        `json:"client_certificate_asked"`
}

// Certificate is the server's.
type Certificate struct {
	Subject string    `json:"subject"`
	Names   []string  `json:"names"`
	Issuer  string    `json:"issuer"`
	Expires time.Time `json:"expires"`
}

// HTTP2 is what the server says when HTTP/2 begins.
type HTTP2 struct {
	Limited       bool    `json:"streams_limited"`
	MaxStreams    uint32  `json:"max_streams"` // at a time on one connection; if limited
	Window        uint32  `json:"initial_window_bytes"`
	MaxHeaderList uint32  `json:"max_header_list_bytes"` // 0: not said
	Ping          float64 `json:"ping_ms"`
	FrequentPings string  `json:"frequent_pings"` // "answered", or how they were refused
}

// Target is where to connect to.
type Target struct {
	Address string      // host:port, or a gRPC target of the schemes dns, passthrough and unix
	TLS     *tls.Config // nil: plaintext
	Name    string      // to find in the certificate; "": the host
}

// Probe makes one connection, sees what it shows, and closes it. With an error it
// returns what it has found until then. It sends five HTTP/2 PINGs in a row, which
// some servers answer with GOAWAY: that is seen, and does no harm.
func Probe(ctx context.Context, t Target) (*Findings, error) {
	f := &Findings{}
	network, host, port, err := parseTarget(t.Address)
	if err != nil {
		return f, err
	}
	addresses := []string{host}
	if network == "tcp" {
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return f, fmt.Errorf("ping: %w", err)
		}
		addresses = addresses[:0]
		for _, ip := range ips {
			addresses = append(addresses, net.JoinHostPort(ip, port))
		}
	}
	f.Addresses = addresses
	conn, err := f.connect(ctx, network)
	if err != nil {
		return f, err
	}
	defer conn.Close() //nolint:errcheck // it has shown what it had to show
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var info credentials.AuthInfo
	if t.TLS != nil {
		name := t.Name
		if name == "" {
			name = host
		}
		secured, err := f.handshake(ctx, conn, t.TLS, name)
		if err != nil {
			return f, err
		}
		conn, info = secured, credentials.TLSInfo{State: secured.ConnectionState()}
	}
	seen := tap.New(tap.Events{})
	if err := f.begin(seen.Wrap(conn, info)); err != nil {
		// The tap has looked at what came: an alert of TLS, HTTP/1, nothing.
		if cause := seen.Cause(); cause != nil {
			err = fmt.Errorf("ping: %w", cause)
		}
		return f, err
	}
	return f, nil
}

// parseTarget reads a gRPC target as far as the command needs it.
func parseTarget(target string) (network, host, port string, err error) {
	rest := target
	if scheme, after, ok := strings.Cut(target, ":"); ok {
		switch scheme {
		case "unix":
			return "unix", strings.TrimPrefix(after, "//"), "", nil
		case "dns", "passthrough":
			rest = after
			if authority, ok := strings.CutPrefix(after, "//"); ok {
				_, rest, _ = strings.Cut(authority, "/") // dns://resolver/host: the system's is asked
			}
		}
	}
	if strings.Contains(rest, "/") {
		return "", "", "", fmt.Errorf("ping: %q: want host:port, dns:///host:port or unix:///path", target)
	}
	host, port, err = net.SplitHostPort(rest)
	if err != nil && !strings.Contains(rest, ":") {
		host, port, err = rest, "443", nil // gRPC's default
	}
	if err != nil || host == "" {
		return "", "", "", fmt.Errorf("ping: %q: want host:port, dns:///host:port or unix:///path", target)
	}
	return "tcp", host, port, nil
}

// connect takes the first address that answers.
func (f *Findings) connect(ctx context.Context, network string) (net.Conn, error) {
	var failures []error
	for _, a := range f.Addresses {
		start := time.Now()
		conn, err := new(net.Dialer).DialContext(ctx, network, a)
		if err == nil {
			f.Connected, f.Connect = a, milliseconds(time.Since(start))
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("ping: %w", errors.Join(failures...))
}

func (f *Findings) handshake(ctx context.Context, conn net.Conn, config *tls.Config, name string) (*tls.Conn, error) {
	config = config.Clone()
	config.NextProtos = []string{http2.NextProtoTLS}
	config.ServerName = name
	seen := &TLS{}
	certificates := config.Certificates
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		seen.ClientAsked = true
		if len(certificates) > 0 {
			return &certificates[0], nil
		}
		return new(tls.Certificate), nil
	}
	start := time.Now()
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		var failed *tls.CertificateVerificationError
		if errors.As(err, &failed) && len(failed.UnverifiedCertificates) > 0 {
			seen.Certificate = describe(failed.UnverifiedCertificates[0])
			f.TLS = seen
		}
		return nil, fmt.Errorf("ping: %w", err)
	}
	state := secured.ConnectionState()
	seen.Handshake = milliseconds(time.Since(start))
	seen.Version, seen.Cipher = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	seen.Protocol = state.NegotiatedProtocol
	seen.Certificate = describe(state.PeerCertificates[0])
	f.TLS = seen
	if seen.Protocol != http2.NextProtoTLS {
		return nil, errNoHTTP2
	}
	return secured, nil
}

func describe(c *x509.Certificate) Certificate {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return Certificate{Subject: c.Subject.String(), Names: names, Issuer: c.Issuer.String(), Expires: c.NotAfter}
}

// begin begins HTTP/2 and sends PINGs.
func (f *Findings) begin(conn net.Conn) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return fmt.Errorf("ping: beginning HTTP/2: %w", err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return fmt.Errorf("ping: beginning HTTP/2: %w", err)
	}
	first, err := framer.ReadFrame()
	if err != nil {
		return fmt.Errorf("ping: waiting for the server's HTTP/2 settings: %w", err)
	}
	settings, ok := first.(*http2.SettingsFrame)
	if !ok {
		return fmt.Errorf("ping: the server began with %v: %w", first.Header(), tap.ErrNotHTTP2)
	}
	h := &HTTP2{Window: 65_535} // RFC 9113, section 6.5.2
	h.MaxStreams, h.Limited = settings.Value(http2.SettingMaxConcurrentStreams)
	if w, ok := settings.Value(http2.SettingInitialWindowSize); ok {
		h.Window = w
	}
	h.MaxHeaderList, _ = settings.Value(http2.SettingMaxHeaderListSize)
	f.HTTP2 = h
	if err := framer.WriteSettingsAck(); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return h.ping(framer)
}

// pingsInARow are more than a grpc-go server takes by default (gRFC A8).
const pingsInARow = 5

func (h *HTTP2) ping(framer *http2.Framer) error {
	h.FrequentPings = "answered"
	for i := range byte(pingsInARow) {
		start := time.Now()
		if err := framer.WritePing(false, [8]byte{'p', 'i', 'n', 'g', i}); err != nil {
			return h.refused(i, err)
		}
		for answered := false; !answered; {
			frame, err := framer.ReadFrame()
			if err != nil {
				return h.refused(i, err)
			}
			switch frame := frame.(type) {
			case *http2.PingFrame:
				answered = frame.IsAck() && frame.Data[4] == i
			case *http2.GoAwayFrame:
				h.FrequentPings = fmt.Sprintf("refused after %d: GOAWAY %v %q", i, frame.ErrCode, frame.DebugData())
				return nil
			}
		}
		if i == 0 {
			h.Ping = milliseconds(time.Since(start))
		}
	}
	return nil
}

// refused is no error after the first PING was answered.
func (h *HTTP2) refused(answered byte, err error) error {
	if answered == 0 {
		return fmt.Errorf("ping: waiting for the answer to an HTTP/2 PING: %w", err)
	}
	h.FrequentPings = fmt.Sprintf("refused after %d: %v", answered, err)
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
