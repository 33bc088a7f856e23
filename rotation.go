package grpcpool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/scale"
)

const (
	settleTime       = time.Second      // how long files must have been still
	loadTimeout      = 10 * time.Second // of one check
	handshakeTimeout = time.Second      // of a check that a handshake waits for
	freshFor         = time.Second      // a handshake does not ask again within this time
	closeTimeout     = time.Second      // to wait for what does not come back
	warnEvery        = time.Minute      // a source that keeps failing is logged this often
)

func loadFrom(source CertificateSource) bounded[material] {
	return bounded[material]{
		call: func(ctx context.Context, _ time.Duration) (checked material, err error) {
			identity, err := source(ctx)
			if err == nil {
				checked, err = identity.check(time.Now())
			}
			if err != nil {
				return material{}, fmt.Errorf("WithCertificateSource: %w", err)
			}
			return checked, nil
		},
		late: func(after time.Duration, cause error) error {
			return fmt.Errorf("WithCertificateSource: the source has not answered after %v: %w; it must return when its context ends", after, cause)
		},
	}
}

// rotation follows a source of identities and has connections replaced when there
// is a new one.
//
// A check of the source runs on whatever goroutine wants it: the watch of a
// channel, a handshake, Reload. The watch of a channel lasts as long as the channel
// is open, so a factory needs no end of its own; whoever wants to wait for its
// goroutines calls Close. What is asked may hang: see bounded.
type rotation struct {
	identity bounded[material]
	crls     bounded[*revocations]
	settings tlsSettings
	logger   *slog.Logger
	replacer scale.Replacer

	checking chan struct{} // holds an element while a check runs; that check owns identity, crls and the store of current
	current  atomic.Pointer[generation]

	mu        sync.Mutex // guards what follows
	checkedAt time.Time  // when the last check ended
	lastErr   error      // of the last check
	warnedAt  time.Time  // when a failing source was last logged
	expiry    expiryWarnings
	closed    bool
	running   sync.WaitGroup // watches; Go is called with mu held and not closed

	life context.Context    //nolint:containedctx // of the watches: they outlast the calls that begin them
	end  context.CancelFunc // ends life
}

// generation is one identity and what goes with it. It is not changed.
type generation struct {
	number   uint64
	identity material
	crls     *revocations
	loadedAt time.Time
	creds    credentials.TransportCredentials
}

func newRotation(identity bounded[material], target string, cfg *factoryConfig) (*rotation, error) {
	r := &rotation{
		identity: identity,
		crls:     loadCRLs(cfg.tls.crlFiles, cfg.tls.crlFailClosed),
		settings: cfg.tls,
		logger:   cfg.logger.With("target", target),
		checking: make(chan struct{}, 1),
	}
	r.life, r.end = context.WithCancel(context.Background())
	if err := r.check(context.Background(), loadTimeout, 0); err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

// check asks the source, and takes what is new. settled is for the loadFunc. It
// waits for a check that is under way. The error says why the newest is not in use.
func (r *rotation) check(ctx context.Context, timeout, settled time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case r.checking <- struct{}{}:
		defer func() { <-r.checking }()
	case <-limited.Done():
		return fmt.Errorf("grpcpool: waiting for another check of the identity: %w", context.Cause(limited))
	}
	settling, err := r.loadAndTake(limited, settled)
	if r.current.Load() == nil {
		return err // a factory that is being made: there is nothing to go on with
	}
	r.warnOfExpiry(scale.Channel{}, time.Now())
	if err == nil && !settling || err != nil && ctx.Err() == nil { // a caller who leaves says nothing about the source
		r.note(err)
	}
	if settling {
		return errSettling
	}
	return err
}

// loadAndTake asks for an identity and for revocation lists. What can be used of
// them is taken, and the old stays in place of what cannot: neither waits for the
// other to be put right. settling says that some may not be whole yet.
func (r *rotation) loadAndTake(ctx context.Context, settled time.Duration) (settling bool, err error) {
	var crls *revocations
	var crlErr error
	var reading sync.WaitGroup
	reading.Go(func() { crls, crlErr = r.crls.load(ctx, settled) }) // at the same time: either may take all the time there is
	identity, identityErr := r.identity.load(ctx, settled)
	reading.Wait()
	for _, e := range []error{identityErr, crlErr} {
		switch {
		case errors.Is(e, errSettling):
			settling = true
		case e == nil:
		case err == nil:
			err = fmt.Errorf("grpcpool: %w", e)
		default:
			err = fmt.Errorf("%w; %w", err, e)
		}
	}
	old := r.current.Load()
	if old == nil && err != nil {
		return settling, err
	}
	if identityErr != nil {
		identity = old.identity
	}
	if crls == nil && crlErr != nil { // else it has what can be used
		crls = old.crls
	}
	r.take(identity, crls)
	return settling, err
}

// take makes identity and crls the current generation. The caller has the check. The
// new one is there before the old one's connections are told: whatever handshakes
// with the old one has begun before.
//
// An identity that shows the same is taken too, as the same generation: its key may be
// reached by another way than before (a new session with an HSM), and the way before
// may be closed. What a server sees stays the same, so connections stay.
func (r *rotation) take(identity material, crls *revocations) {
	old := r.current.Load()
	g := &generation{number: 1, identity: identity, crls: crls, loadedAt: time.Now()}
	g.creds = r.newCredentials(g)
	same := old != nil && identity.equal(&old.identity.Identity)
	switch {
	case same:
		g.number, g.loadedAt = old.number, old.loadedAt
	case old != nil:
		g.number = old.number + 1
	}
	r.current.Store(g)
	if identity.unreadable != "" && (old == nil || old.identity.unreadable != identity.unreadable) {
		r.logger.Warn("some certificates cannot be parsed", "which", identity.unreadable)
	}
	switch {
	case old == nil:
	case !same:
		leaf := identity.Certificate.Leaf
		r.logger.Info("new identity, replacing connections", "generation", g.number, "subject", leaf.Subject.String(),
			"serial", serial(leaf), "notAfter", leaf.NotAfter)
		r.replacer.Replace(fmt.Sprintf("identity %d took the place of identity %d", g.number, old.number), r.settings.within)
	case crls != old.crls && !crls.sameEntries(old.crls):
		r.logger.Info("new certificate revocations, replacing connections")
		r.replacer.Replace("new certificate revocations", r.settings.within)
	}
}

// newCredentials makes what the handshakes of a generation go by. There is no
// session cache: a resumed session would carry the identity of the one before it,
// on both sides, and skip the check of the new certificate.
func (r *rotation) newCredentials(g *generation) credentials.TransportCredentials {
	v := verifier{crls: g.crls, pins: r.settings.pins, verify: r.settings.verify}
	return credentials.NewTLS(&tls.Config{
		MinVersion: r.settings.minVersion,
		RootCAs:    g.identity.Roots,
		// With Certificates instead, crypto/tls would show none to a server that names
		// other authorities, whose answer, that it wants one, would mislead.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &g.identity.Certificate, nil },
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := v.connection(state); err != nil {
				return err
			}
			r.sawServer(&state, time.Now())
			return nil
		},
	})
}

// note keeps how a check ended, and logs it if it went badly.
func (r *rotation) note(err error) {
	now := time.Now()
	r.mu.Lock()
	recovered := err == nil && r.lastErr != nil
	warn := err != nil && now.Sub(r.warnedAt) >= warnEvery && r.current.Load() != nil
	r.checkedAt, r.lastErr = now, err
	if warn {
		r.warnedAt = now
	}
	r.mu.Unlock()
	switch {
	case warn:
		r.logger.Warn("the new identity cannot be used, the old one stays", "error", err)
	case recovered:
		r.logger.Info("the source of the identity is in order again")
	}
}

// forHandshake is the generation to show now. It asks the source first, unless that
// was done just now, is being done, or has failed lately: if the source is slow, the
// handshake need not be. What is missed here is put right by the watch.
//
// The check goes on when the handshake's own time ends: otherwise a program whose
// patience is shorter than the source's would wait for it anew at every dial.
func (r *rotation) forHandshake(ctx context.Context) *generation {
	now := time.Now()
	expired := now.After(r.current.Load().identity.Certificate.Leaf.NotAfter)
	r.mu.Lock()
	age, failing := now.Sub(r.checkedAt), r.lastErr != nil
	r.mu.Unlock()
	enough := min(freshFor, r.settings.interval)
	if failing {
		enough = r.settings.interval
	}
	if expired || age >= enough && len(r.checking) == 0 {
		_ = r.check(context.WithoutCancel(ctx), handshakeTimeout, r.settleTime()) // noted; the handshake goes on with what there is
	}
	return r.current.Load()
}

func (r *rotation) settleTime() time.Duration { return min(settleTime, r.settings.interval) }

// follow watches over the source for as long as conn is open.
func (r *rotation) follow(conn *grpc.ClientConn, observer *scale.Observer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.running.Go(func() {
		ctx, cancel := context.WithCancel(r.life)
		defer cancel()
		var watch sync.WaitGroup
		watch.Go(func() { r.watch(ctx, observer) })
		for state := conn.GetState(); state != connectivity.Shutdown; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				break
			}
		}
		cancel()
		watch.Wait()
	})
}

// watch checks the source until ctx ends.
func (r *rotation) watch(ctx context.Context, observer *scale.Observer) {
	timer := time.NewTimer(r.settings.interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := r.settings.interval
		if errors.Is(r.check(ctx, loadTimeout, r.settleTime()), errSettling) {
			next = r.settleTime()
		}
		r.warnOfExpiry(observer.Snapshot(), time.Now())
		timer.Reset(next)
	}
}

// close ends the watches and waits for them. The error says what has not come back
// in closeTimeout, and would end by itself.
func (r *rotation) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	select {
	case r.checking <- struct{}{}:
		defer func() { <-r.checking }()
	case <-ctx.Done():
		return errors.New("grpcpool: closing: a check of the identity is still under way, for a handshake or Reload")
	}
	for _, err := range []error{r.identity.wait(ctx), r.crls.wait(ctx)} {
		if err != nil {
			return fmt.Errorf("grpcpool: closing: a goroutine is left: %w", err)
		}
	}
	return nil
}
