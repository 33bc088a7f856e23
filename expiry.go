package grpcpool

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/davidwartell/go-grpcpool/scale"
)

// maxServerCertificates bounds the memory of a factory whose servers come and go.
const maxServerCertificates = 256

// An authority is renewed by people, with time to spare, but not with a third of ten
// years.
const (
	authorityNear   = 90 * 24 * time.Hour
	authorityUrgent = 30 * 24 * time.Hour
)

// expiryWarnings remembers what was warned of, so that each certificate is warned
// of once at each grade.
type expiryWarnings struct {
	generation  uint64 // that client is about
	client      []*lifetime
	servers     map[certificateKey]*serverLifetime
	authorities map[certificateKey]*lifetime // of the servers
}

// certificateKey tells certificates apart by what a snapshot shows of them.
type certificateKey struct {
	name     string
	notAfter int64 // Unix seconds
}

func keyOf(c *x509.Certificate) certificateKey {
	return certificateKey{c.Subject.CommonName, c.NotAfter.Unix()}
}

// serverLifetime is that of a server's certificate and of the authorities behind it.
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

// worsened is the grade, if it is time to warn of it; else "".
func (l *lifetime) worsened(now time.Time) Expiry {
	grade := expiryOf(l.notBefore, l.notAfter, now)
	if left := l.notAfter.Sub(now); l.isAuthority {
		if grade == ExpiryUrgent && left > authorityUrgent {
			grade = ExpiryNear
		}
		if grade == ExpiryNear && left > authorityNear {
			grade = ExpiryFar
		}
	}
	worse := grade.worse(l.warned)
	l.warned = grade
	if !worse {
		return ""
	}
	return grade
}

// worse says that e is closer to the end than other.
func (e Expiry) worse(other Expiry) bool {
	grades := []Expiry{"", ExpiryFar, ExpiryNear, ExpiryUrgent, ExpiryPassed}
	return slices.Index(grades, e) > max(1, slices.Index(grades, other))
}

// sawServer remembers the certificate that a server has shown and the authorities that
// vouch for it, and warns if the end of one is near.
func (r *rotation) sawServer(state *tls.ConnectionState, now time.Time) {
	if len(state.PeerCertificates) == 0 {
		return // cannot be: a server without one fails the handshake before
	}
	leaf := state.PeerCertificates[0]
	key := keyOf(leaf)
	r.mu.Lock()
	e := &r.expiry
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
	r.mu.Unlock()
	r.warnOfServer(key, now)
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

// longestChain is the chain that is valid for the longest time: handshakes go on until
// it ends. It has one element at least.
func longestChain(chains [][]*x509.Certificate) []*x509.Certificate {
	if len(chains) == 0 {
		return make([]*x509.Certificate, 1) // cannot be: the usual checks come first
	}
	end := func(chain []*x509.Certificate) time.Time {
		return slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
	}
	return slices.MaxFunc(chains, func(a, b []*x509.Certificate) int { return end(a).Compare(end(b)) })
}

func (r *rotation) warnOfServer(key certificateKey, now time.Time) {
	r.mu.Lock()
	server := r.expiry.servers[key]
	if server == nil {
		r.mu.Unlock()
		return
	}
	leaf := server.worsened(now)
	authorities := worsenedAmong(server.authorities, now)
	r.mu.Unlock()
	if leaf != "" {
		r.logger.Warn("the server's certificate "+sayExpiry(leaf), "name", key.name, "notAfter", time.Unix(key.notAfter, 0).UTC())
	}
	for l, grade := range authorities {
		r.logger.Warn("a CA certificate in the server's chain "+sayAuthorityExpiry(grade), "server", key.name,
			"authority", l.subject, "serial", l.serial, "notAfter", l.notAfter.UTC())
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

// warnOfExpiry warns if the end of the client's certificate is near, or of one that it
// needs to be believed, or that of a server in inside.
func (r *rotation) warnOfExpiry(inside scale.Channel, now time.Time) {
	g := r.current.Load()
	r.mu.Lock()
	e := &r.expiry
	if e.generation != g.number {
		e.generation, e.client = g.number, nil
		for i, c := range issuancePath(g.identity.chain) {
			e.client = append(e.client, newLifetime(c, i > 0))
		}
	}
	leaf := e.client[0].worsened(now)
	authorities := worsenedAmong(e.client[1:], now)
	shown := e.client[0]
	r.mu.Unlock()
	if leaf != "" {
		r.logger.Warn("the client's certificate "+sayExpiry(leaf), "generation", g.number,
			"subject", shown.subject, "serial", shown.serial, "notAfter", shown.notAfter.UTC())
	}
	for l, grade := range authorities {
		r.logger.Warn("a CA certificate in the client's chain "+sayAuthorityExpiry(grade), "generation", g.number,
			"authority", l.subject, "serial", l.serial, "notAfter", l.notAfter.UTC())
	}
	for _, s := range inside.Subchannels {
		for _, c := range s.Connections {
			if c.TLS != nil {
				r.warnOfServer(certificateKey{c.TLS.ServerName, c.TLS.Expires.Unix()}, now)
			}
		}
	}
}

// issuancePath is the leaf and what has issued it, as far as the chain has it. What is
// in a chain beside that is not needed by anyone.
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

func (r *rotation) info(now time.Time) IdentityInfo {
	g := r.current.Load()
	leaf := g.identity.Certificate.Leaf
	info := IdentityInfo{
		Generation: g.number,
		Subject:    leaf.Subject.String(),
		Serial:     serial(leaf),
		NotBefore:  leaf.NotBefore,
		NotAfter:   leaf.NotAfter,
		Expiry:     expiryOf(leaf.NotBefore, leaf.NotAfter, now),
		LoadedAt:   g.loadedAt,
		Unreadable: g.identity.unreadable,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	info.CheckedAt, info.LastError = r.checkedAt, r.lastErr
	return info
}

func serial(c *x509.Certificate) string { return fmt.Sprintf("%x", c.SerialNumber) }
