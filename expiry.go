package grpcpool

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/davidwartell/go-grpcpool/scale"
)

// maxServerCertificates bounds the memory of a factory whose servers come and go.
const maxServerCertificates = 256

// expiryWarnings remembers what was warned of, so that each certificate is warned
// of once at each grade.
type expiryWarnings struct {
	generation uint64 // that client is about
	client     Expiry
	servers    map[serverCertificate]*lifetime
}

// serverCertificate tells server certificates apart by what a snapshot shows of
// them.
type serverCertificate struct {
	name     string
	notAfter int64 // Unix seconds
}

type lifetime struct {
	notBefore, notAfter time.Time
	warned              Expiry
}

// worse says that e is closer to the end than other.
func (e Expiry) worse(other Expiry) bool {
	grades := []Expiry{"", ExpiryFar, ExpiryNear, ExpiryUrgent, ExpiryPassed}
	return slices.Index(grades, e) > max(1, slices.Index(grades, other))
}

// sawServer remembers the certificate that a server has shown, and warns if its
// end is near.
func (r *rotation) sawServer(state *tls.ConnectionState, now time.Time) {
	if len(state.PeerCertificates) == 0 {
		return // cannot be: a server without one fails the handshake before
	}
	leaf := state.PeerCertificates[0]
	key := serverCertificate{leaf.Subject.CommonName, leaf.NotAfter.Unix()}
	r.mu.Lock()
	e := &r.expiry
	if e.servers == nil {
		e.servers = make(map[serverCertificate]*lifetime)
	}
	if e.servers[key] == nil {
		for old := range e.servers {
			if len(e.servers) < maxServerCertificates {
				break
			}
			delete(e.servers, old)
		}
		e.servers[key] = &lifetime{notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}
	}
	r.mu.Unlock()
	r.warnOfServer(key, now)
}

func (r *rotation) warnOfServer(key serverCertificate, now time.Time) {
	r.mu.Lock()
	l := r.expiry.servers[key]
	if l == nil {
		r.mu.Unlock()
		return
	}
	grade := expiryOf(l.notBefore, l.notAfter, now)
	warn := grade.worse(l.warned)
	l.warned = grade
	r.mu.Unlock()
	if warn {
		r.logger.Warn("the server's certificate "+sayExpiry(grade), "name", key.name, "notAfter", time.Unix(key.notAfter, 0).UTC())
	}
}

// warnOfExpiry warns if the end of the client's certificate is near, or that of a
// server in inside.
func (r *rotation) warnOfExpiry(inside scale.Channel, now time.Time) {
	g := r.current.Load()
	leaf := g.identity.Certificate.Leaf
	grade := expiryOf(leaf.NotBefore, leaf.NotAfter, now)
	r.mu.Lock()
	e := &r.expiry
	if e.generation != g.number {
		e.generation, e.client = g.number, ExpiryFar
	}
	warn := grade.worse(e.client)
	e.client = grade
	r.mu.Unlock()
	if warn {
		r.logger.Warn("the client's certificate "+sayExpiry(grade), "generation", g.number,
			"subject", leaf.Subject.String(), "serial", serial(leaf), "notAfter", leaf.NotAfter.UTC())
	}
	for _, s := range inside.Subchannels {
		for _, c := range s.Connections {
			if c.TLS != nil {
				r.warnOfServer(serverCertificate{c.TLS.ServerName, c.TLS.Expires.Unix()}, now)
			}
		}
	}
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
