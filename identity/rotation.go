package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	settleTime       = time.Second      // how long files must have been unchanged
	loadTimeout      = 10 * time.Second // of one check
	handshakeTimeout = time.Second      // of a check that a handshake waits for
	freshFor         = time.Second      // a handshake does not check again within this time
	closeTimeout     = time.Second      // how long Close waits for what hangs
	warnEvery        = time.Minute      // a source that fails now and then is logged this often at most
)

func loadFrom(source Source) bounded[material] {
	return bounded[material]{
		call: func(ctx context.Context, _ time.Duration) (checked material, err error) {
			identity, err := source(ctx)
			if err == nil {
				checked, err = identity.check(time.Now())
			}
			if err != nil {
				return material{}, fmt.Errorf("FromSource: %w", err)
			}
			return checked, nil
		},
		late: func(after time.Duration, cause error) error {
			return fmt.Errorf("FromSource: the source has not answered after %v: %w; it must return when its context ends", after, cause)
		},
	}
}

// generation is one identity and what belongs to it. It does not change.
type generation struct {
	number   uint64
	identity material
	crls     *revocations
	loadedAt time.Time
	creds    credentials.TransportCredentials
}

// check asks the source, and takes what is new. settled is passed to the loadFunc. It
// waits for a check that is running already. The error says why the newest is not in use.
// It runs on the goroutine of the watch, of a handshake, or of Reload.
func (p *Provider) check(ctx context.Context, timeout, settled time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case p.checking <- struct{}{}:
		defer func() { <-p.checking }()
	case <-limited.Done():
		return fmt.Errorf("identity: waiting for another check for a new identity: %w", context.Cause(limited))
	}
	settling, err := p.loadAndTake(limited, settled)
	if p.current.Load() == nil {
		return err // the provider is being made, and has no identity to go on with
	}
	p.warnOfExpiry(time.Now())
	if err == nil && !settling || err != nil && ctx.Err() == nil { // a caller who gives up says nothing about the source
		p.note(err)
	}
	if settling {
		return errSettling
	}
	return err
}

// loadAndTake asks for an identity and for revocation lists. It takes those that can be
// used and keeps the current ones in place of those that cannot: a mistake in one of the
// two does not delay the other. settling says that some may be incomplete.
func (p *Provider) loadAndTake(ctx context.Context, settled time.Duration) (settling bool, err error) {
	var crls *revocations
	var crlErr error
	var reading sync.WaitGroup
	reading.Go(func() { crls, crlErr = p.crls.load(ctx, settled) }) // at the same time: each may take all the time there is
	identity, identityErr := p.identity.load(ctx, settled)
	reading.Wait()
	for _, e := range []error{identityErr, crlErr} {
		switch {
		case errors.Is(e, errSettling):
			settling = true
		case e == nil:
		case err == nil:
			err = fmt.Errorf("identity: %w", e)
		default:
			err = fmt.Errorf("%w; %w", err, e)
		}
	}
	old := p.current.Load()
	if old == nil && err != nil {
		return settling, err
	}
	if identityErr != nil {
		identity = old.identity
	}
	if crls == nil && crlErr != nil { // otherwise it holds what can be used
		crls = old.crls
	}
	p.take(identity, crls)
	return settling, err
}

// take makes identity and crls the current generation. The caller has the check. The
// new generation is stored before the connections of the old one are replaced: a handshake
// that still shows the old one has begun before, so its connection is replaced as well.
//
// An identity that looks the same to the server is taken too, as the same generation: its
// key may be reached in another way than before (a new session with an HSM), and the way
// before may be closed. Connections stay then.
func (p *Provider) take(identity material, crls *revocations) {
	old := p.current.Load()
	g := &generation{number: 1, identity: identity, crls: crls, loadedAt: time.Now()}
	g.creds = p.newCredentials(g)
	same := old != nil && identity.equal(&old.identity.Identity)
	switch {
	case same:
		g.number, g.loadedAt = old.number, old.loadedAt
	case old != nil:
		g.number = old.number + 1
	}
	p.current.Store(g)
	revoked := same && crls != old.crls && !crls.sameEntries(old.crls)
	p.logTaken(g, old, same, revoked)
	switch {
	case old == nil:
	case !same:
		p.replacer.Replace(fmt.Sprintf("identity %d replaced identity %d", g.number, old.number), p.settings.within)
	case revoked:
		p.replacer.Replace("new certificate revocations", p.settings.within)
	}
}

// newCredentials makes the credentials for the handshakes of a generation. There is no
// session cache: a resumed session would keep the identity of the session before it,
// on both sides, and skip the verification of the new certificate.
func (p *Provider) newCredentials(g *generation) credentials.TransportCredentials {
	v := verifier{crls: g.crls, pins: p.settings.pins, verify: p.settings.verify}
	return credentials.NewTLS(&tls.Config{
		MinVersion: p.settings.minVersion,
		RootCAs:    g.identity.Roots,
		// With Certificates, crypto/tls would show none to a server that names other
		// authorities, and the server's error, that it wants one, would mislead.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &g.identity.Certificate, nil },
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := v.connection(state); err != nil {
				return err
			}
			p.sawServer(&state, time.Now())
			return nil
		},
	})
}

// forHandshake is the generation to show now. It checks for a newer one first, unless a
// check has just ended, is running, or has failed lately: a slow source must not slow every
// handshake. The watch finds what it misses.
//
// The check goes on when the handshake's own time ends: otherwise a program with less
// patience than the source takes would wait for it at every dial.
func (p *Provider) forHandshake(ctx context.Context) *generation {
	now := time.Now()
	expired := now.After(p.current.Load().identity.Certificate.Leaf.NotAfter)
	p.mu.Lock()
	age, failing := now.Sub(p.checkedAt), p.lastErr != nil
	p.mu.Unlock()
	enough := min(freshFor, p.settings.interval)
	if failing {
		enough = p.settings.interval
	}
	if expired || age >= enough && len(p.checking) == 0 {
		_ = p.check(context.WithoutCancel(ctx), handshakeTimeout, p.settleTime()) // noted; the handshake goes on with what there is
	}
	return p.current.Load()
}

func (p *Provider) settleTime() time.Duration { return min(settleTime, p.settings.interval) }

// startOrEndWatch has one watch run while channels use the provider. The replacer calls
// it when the first channel comes and the last one goes.
func (p *Provider) startOrEndWatch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch inUse := p.replacer.InUse(); {
	case !inUse && p.endWatch != nil:
		p.endWatch()
		p.endWatch = nil
	case inUse && p.endWatch == nil && !p.closed:
		ctx, cancel := context.WithCancel(context.Background())
		p.endWatch = cancel
		p.watches.Go(func() { p.watch(ctx) })
	}
}

// watch checks for new identities until ctx ends.
func (p *Provider) watch(ctx context.Context) {
	timer := time.NewTimer(p.settings.interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := p.settings.interval
		if errors.Is(p.check(ctx, loadTimeout, p.settleTime()), errSettling) {
			next = p.settleTime()
		}
		p.warnOfServers(time.Now())
		timer.Reset(next)
	}
}
