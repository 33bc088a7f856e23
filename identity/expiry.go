package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// maxServerCertificates bounds the memory of a provider whose servers come and go, to a few
// MB. A server whose certificate is forgotten is warned of again, or never, so it is more
// than the servers that one program talks to.
const maxServerCertificates = 1 << 13

// Authorities are renewed by people, who need time, but not a third of ten years.
const (
	authorityNear   = 90 * 24 * time.Hour
	authorityUrgent = 30 * 24 * time.Hour
)

// expiryWarnings remembers the warnings, so that there is one for each certificate and
// grade.
type expiryWarnings struct {
	generation  uint64 // whose chain client is
	client      []*lifetime
	servers     map[certificateKey]*serverLifetime
	authorities map[certificateKey]*lifetime // of the servers
}

// certificateKey identifies a certificate by what a snapshot shows of it.
type certificateKey struct {
	name     string
	notAfter int64 // Unix seconds
}

func keyOf(c *x509.Certificate) certificateKey {
	return certificateKey{c.Subject.CommonName, c.NotAfter.Unix()}
}

// serverLifetime is the lifetime of a server's certificate and of the authorities above it.
type serverLifetime struct {
	lifetime

	authorities []*lifetime
}

type lifetime struct {
	subject             string
	serial              string
	notBefore, notAfter time.Time
	isAuthority         bool
	warned              Expiry
}

func newLifetime(c *x509.Certificate, isAuthority bool) *lifetime {
	return &lifetime{subject: c.Subject.String(), serial: serial(c), notBefore: c.NotBefore, notAfter: c.NotAfter, isAuthority: isAuthority}
}

// worsened is the grade, if it is time to warn of it; otherwise "".
func (l *lifetime) worsened(now time.Time) Expiry {
	grade, due := l.grade(now), l.due(now)
	l.warned = grade
	if !due {
		return ""
	}
	return grade
}

// due reports whether it is time to warn.
func (l *lifetime) due(now time.Time) bool { return l.grade(now).worse(l.warned) }

func (l *lifetime) grade(now time.Time) Expiry {
	grade := expiryOf(l.notBefore, l.notAfter, now)
	if left := l.notAfter.Sub(now); l.isAuthority {
		if grade == ExpiryUrgent && left > authorityUrgent {
			grade = ExpiryNear
		}
		if grade == ExpiryNear && left > authorityNear {
			grade = ExpiryFar
		}
	}
	return grade
}

// worse reports whether e is closer to the end than other.
func (e Expiry) worse(other Expiry) bool {
	grades := []Expiry{"", ExpiryFar, ExpiryNear, ExpiryUrgent, ExpiryPassed}
	return slices.Index(grades, e) > max(1, slices.Index(grades, other))
}

// sawServer remembers the certificate that a server has shown and the authorities above
// it, and warns if one of them is about to expire.
func (p *Provider) sawServer(state *tls.ConnectionState, now time.Time) {
	if len(state.PeerCertificates) == 0 {
		return // cannot happen: a server without one fails the handshake before
	}
	leaf := state.PeerCertificates[0]
	key := keyOf(leaf)
	p.mu.Lock()
	e := &p.expiry
	if e.servers == nil {
		e.servers, e.authorities = make(map[certificateKey]*serverLifetime), make(map[certificateKey]*lifetime)
	}
	if e.servers[key] == nil {
		makeRoom(e.servers)
		e.servers[key] = &serverLifetime{lifetime: *newLifetime(leaf, false)}
	}
	e.servers[key].authorities = nil
	for _, c := range longestChain(state.VerifiedChains)[1:] {
		above := keyOf(c)
		if e.authorities[above] == nil {
			makeRoom(e.authorities)
			e.authorities[above] = newLifetime(c, true)
		}
		e.servers[key].authorities = append(e.servers[key].authorities, e.authorities[above])
	}
	p.mu.Unlock()
	p.warnOfServer(key, now)
}

// makeRoom keeps a map below maxServerCertificates.
func makeRoom[V any](m map[certificateKey]V) {
	for key := range m {
		if len(m) < maxServerCertificates {
			return
		}
		delete(m, key)
	}
}

// longestChain is the chain that is valid for the longest time: handshakes succeed until
// it ends. It has at least one element.
func longestChain(chains [][]*x509.Certificate) []*x509.Certificate {
	if len(chains) == 0 {
		return make([]*x509.Certificate, 1) // cannot happen: the usual checks come first
	}
	end := func(chain []*x509.Certificate) time.Time {
		return slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
	}
	return slices.MaxFunc(chains, func(a, b []*x509.Certificate) int { return end(a).Compare(end(b)) })
}

func (p *Provider) warnOfServer(key certificateKey, now time.Time) {
	p.mu.Lock()
	server := p.expiry.servers[key]
	if server == nil {
		p.mu.Unlock()
		return
	}
	leaf := server.worsened(now)
	authorities := worsenedAmong(server.authorities, now)
	p.mu.Unlock()
	if leaf != "" {
		p.warn("the server's certificate "+sayExpiry(leaf), "renew it on the server",
			slog.String(logServer, key.name), slog.Time(logNotAfter, time.Unix(key.notAfter, 0).UTC()))
	}
	for l, grade := range authorities {
		p.warn("a CA certificate in the server's chain "+sayAuthorityExpiry(grade),
			"make a new CA certificate, add it to the clients' roots, and then issue the server's certificate under it",
			append([]slog.Attr{slog.String(logServer, key.name)}, l.logAttrs()...)...)
	}
}

func worsenedAmong(all []*lifetime, now time.Time) map[*lifetime]Expiry {
	worsened := make(map[*lifetime]Expiry)
	for _, l := range all {
		if grade := l.worsened(now); grade != "" {
			worsened[l] = grade
		}
	}
	return worsened
}

// warnOfExpiry warns if the client's certificate is about to expire, or one of the
// authorities in its chain.
func (p *Provider) warnOfExpiry(now time.Time) {
	g := p.current.Load()
	p.mu.Lock()
	e := &p.expiry
	if e.generation != g.number {
		e.generation, e.client = g.number, nil
		for i, c := range issuancePath(g.identity.chain) {
			e.client = append(e.client, newLifetime(c, i > 0))
		}
	}
	leaf := e.client[0].worsened(now)
	authorities := worsenedAmong(e.client[1:], now)
	shown := e.client[0]
	p.mu.Unlock()
	if leaf != "" {
		p.warn("the client's certificate "+sayExpiry(leaf), "renew it; a provider of files or of a source takes the new one by itself",
			append([]slog.Attr{slog.Uint64(logGeneration, g.number)}, shown.logAttrs()...)...)
	}
	for l, grade := range authorities {
		p.warn("a CA certificate in the client's chain "+sayAuthorityExpiry(grade),
			"make a new CA certificate, add it to the servers' roots, and then issue the client's certificate under it",
			append([]slog.Attr{slog.Uint64(logGeneration, g.number)}, l.logAttrs()...)...)
	}
}

// warnOfServers warns of the certificates that are about to expire, of servers to which
// there is a connection. It looks at the connections only if there is something to say.
func (p *Provider) warnOfServers(now time.Time) {
	if !p.anyServerDue(now) {
		return
	}
	for s := range p.replacer.Subchannels() {
		for _, c := range s.Connections {
			if c.TLS != nil {
				p.warnOfServer(certificateKey{c.TLS.ServerName, c.TLS.Expires.Unix()}, now)
			}
		}
	}
}

func (p *Provider) anyServerDue(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, server := range p.expiry.servers {
		if server.due(now) || slices.ContainsFunc(server.authorities, func(l *lifetime) bool { return l.due(now) }) {
			return true
		}
	}
	return false
}

// issuancePath is the leaf and its issuers, as far as the chain has them. Nobody needs
// what else is in a chain.
func issuancePath(chain []*x509.Certificate) (path []*x509.Certificate) {
	for _, c := range chain {
		if c != nil && (len(path) == 0 || slices.ContainsFunc(path, func(issued *x509.Certificate) bool {
			return bytes.Equal(issued.RawIssuer, c.RawSubject)
		})) {
			path = append(path, c)
		}
	}
	return path
}

func sayExpiry(grade Expiry) string {
	switch grade {
	case ExpiryPassed:
		return "has expired"
	case ExpiryUrgent:
		return "has a tenth of its life left or less"
	default:
		return "has a third of its life left or less"
	}
}

func sayAuthorityExpiry(grade Expiry) string {
	switch grade {
	case ExpiryPassed:
		return "has expired"
	case ExpiryUrgent:
		return "ends very soon"
	default:
		return "ends soon"
	}
}

func serial(c *x509.Certificate) string { return fmt.Sprintf("%x", c.SerialNumber) }
