package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/logline"
	"github.com/davidwartell/go-grpcpool/internal/reason"
)

// The keys of lines about certificates, beside those of package logline.
const (
	logServer     = "server"     // the name in the server's certificate
	logSubject    = "subject"    // of a certificate
	logSerial     = "serial"     // its serial number, in hexadecimal
	logNotAfter   = "not_after"  // when it expires
	logGeneration = "generation" // the number of the client's identity
)

// logAttrs are what a line shows of a certificate.
func (l *lifetime) logAttrs() []slog.Attr {
	return []slog.Attr{
		slog.String(logSubject, reason.OneLine(l.subject)), slog.String(logSerial, l.serial), slog.Time(logNotAfter, l.notAfter.UTC()),
	}
}

// warn logs a fault and what to do about it.
func (p *Provider) warn(message, hint string, attrs ...slog.Attr) {
	p.settings.logger.Warn("identity: "+message, asAny(append(attrs, slog.String(logline.Hint, hint)))...)
}

func (p *Provider) info(message string, attrs ...slog.Attr) {
	p.settings.logger.Info("identity: "+message, asAny(attrs)...)
}

func asAny(attrs []slog.Attr) []any {
	all := make([]any, len(attrs))
	for i, a := range attrs {
		all[i] = a
	}
	return all
}

// logTaken logs what is new in g, which takes the place of old.
func (p *Provider) logTaken(g, old *generation, same, revoked bool) {
	if which := g.identity.unreadable; which != "" && (old == nil || old.identity.unreadable != which) {
		p.warn("some certificates cannot be parsed", "replace them in the file, or remove them; the others are in use", logline.Text(errors.New(which)))
	}
	switch {
	case old == nil:
	case !same:
		leaf := newLifetime(g.identity.Certificate.Leaf, false)
		p.info("new identity; replacing connections", append([]slog.Attr{slog.Uint64(logGeneration, g.number)}, leaf.logAttrs()...)...)
	case revoked:
		p.info("new certificate revocations; replacing connections")
	}
}

// note keeps the result of a check, and logs a failure and a recovery. A source that fails and
// recovers all the time is logged every minute.
func (p *Provider) note(err error) {
	now := time.Now()
	p.mu.Lock()
	recovered, since := err == nil && p.warned, now.Sub(p.warnedAt)
	warn := err != nil && (!p.warned && since >= warnEvery || since >= logline.RemindEvery)
	p.checkedAt, p.lastErr = now, err
	if warn {
		p.warnedAt, p.warned = now, true
	}
	if recovered {
		p.warned = false
	}
	p.mu.Unlock()
	switch {
	case warn:
		p.warn("reload failed; keeping the current certificate",
			fmt.Sprintf("correct what the error names; it is tried again every %v", p.settings.interval), logline.Text(err))
	case recovered:
		p.info("identity source recovered")
	}
}
