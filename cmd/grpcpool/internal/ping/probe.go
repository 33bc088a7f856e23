// Package ping inspects a gRPC server from outside, and pings it through a pool.
//
//	findings, err := ping.Probe(ctx, ping.Target{Address: "api:443", TLS: config})
//	if err != nil {
//		fmt.Println(ping.Explain(err))
//	}
//	summary := ping.Run(ctx, pool, ping.Config{Count: 3, Interval: time.Second, Timeout: time.Second},
//		func(p ping.Ping) { fmt.Println(p.Seq, p.Time, p.Health, p.Error) })
//
//	inspector.go  connects to the server as a channel does
//	probe.go      what one connection shows: TLS, HTTP/2 settings, PING
//	explain.go    why a connection failed, in one line, and what to do
//	run.go        pings through a pool, and their summary
package ping

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// Findings is what one connection to the server shows.
type Findings struct {
	Addresses []string `json:"addresses"`       // that the name resolves to; empty if an HTTP proxy resolves it
	Connected string   `json:"connected"`       // the address that answered
	Proxy     string   `json:"proxy,omitempty"` // the HTTP proxy of the environment, if the connection goes through it
	Connect   float64  `json:"connect_ms"`      // milliseconds to connect, without name resolution; through an HTTP proxy with all
	TLS       *TLS     `json:"tls,omitempty"`   // nil without TLS
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

// HTTP2 is what the server announces when HTTP/2 begins.
type HTTP2 struct {
	Limited       bool    `json:"streams_limited"`
	MaxStreams    uint32  `json:"max_streams"` // at a time per connection, if limited
	Window        uint32  `json:"initial_window_bytes"`
	MaxHeaderList uint32  `json:"max_header_list_bytes"` // 0: not announced
	Ping          float64 `json:"ping_ms"`
	FrequentPings string  `json:"frequent_pings"` // "answered", or how they were refused
}

// Target is where to connect to.
type Target struct {
	Address string      // host:port, or any gRPC target
	TLS     *tls.Config // nil: plaintext
	Name    string      // expected in the certificate; "": the host, as gRPC does
}

// Probe makes one connection as a channel does, inspects it, and closes it. With an error
// it returns what it has found until then. It sends five HTTP/2 PINGs in a row. Some
// servers answer these with GOAWAY, which the findings show and which does no harm.
func Probe(ctx context.Context, t Target) (*Findings, error) {
	if err := checkTarget(t.Address); err != nil {
		return &Findings{}, err
	}
	if ctx.Err() != nil {
		return &Findings{}, fmt.Errorf("ping: %w", context.Cause(ctx))
	}
	return (&inspector{target: t}).inspect(ctx)
}

// inspect inspects a connection that gRPC has made for authority.
func (f *Findings) inspect(ctx context.Context, config *tls.Config, authority string, conn net.Conn) error {
	var info credentials.AuthInfo
	if config != nil {
		name, _, err := net.SplitHostPort(authority)
		if err != nil {
			name = authority // without a port
		}
		secured, err := f.handshake(ctx, conn, config, name)
		if err != nil {
			return err
		}
		conn, info = secured, credentials.TLSInfo{State: secured.ConnectionState()}
	}
	seen := tap.New(tap.Events{})
	err := f.begin(seen.Wrap(conn, info))
	// The tap tells why: a TLS alert, HTTP/1, or nothing received.
	if cause := seen.Cause(); err != nil && cause != nil {
		return fmt.Errorf("ping: %w", cause)
	}
	return err
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

// pingsInARow is more than a grpc-go server accepts by default (gRFC A8).
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

// refused notes that PINGs were refused. It is an error if none was answered.
func (h *HTTP2) refused(answered byte, err error) error {
	if answered == 0 {
		return fmt.Errorf("ping: waiting for the answer to an HTTP/2 PING: %w", err)
	}
	h.FrequentPings = fmt.Sprintf("refused after %d: %v", answered, err)
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
