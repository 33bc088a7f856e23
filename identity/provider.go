package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/scale"
)

// Provider holds an identity and keeps it up to date. Make one with [FromPEM],
// [FromFiles] or [FromSource], and use it for any number of channels. Its methods may be
// called concurrently. With a nil or zero Provider every handshake fails.
//
// While a channel of package scale that uses the provider is active, the provider looks
// for a new identity every 10 s (see [WithReloadInterval]) and warns in its log before
// certificates expire. One goroutine does so for all channels; it ends when the last
// channel is closed or goes idle. Every handshake looks for a new identity too, unless
// that was done within a second.
//
// A new identity is shown by every handshake from then on. Every connection that was made
// under the old one is replaced within 15 s (see [WithReplaceWithin]): its successor is
// dialled first, and once that serves, the old connection takes no new calls and is closed
// when its last stream has ended. If the server refuses the new identity, the old
// connections stay.
//
// If the newest identity cannot be used, the current one stays. The reason is logged at
// Warn once a minute, and is in [Info].LastError.
type Provider struct {
	identity bounded[material]
	crls     bounded[*revocations]
	settings settings
	replacer scale.Replacer

	checking chan struct{} // holds an element while a check runs; that check owns identity, crls and the store of current
	current  atomic.Pointer[generation]

	mu        sync.Mutex // guards what follows
	checkedAt time.Time  // when the last check ended
	lastErr   error      // of the last check
	warnedAt  time.Time  // when a failing source was last logged
	warned    bool       // it was, and has not recovered since
	expiry    expiryWarnings
	closed    bool
	endWatch  context.CancelFunc // ends the watch that runs; nil: none does
	watches   sync.WaitGroup     // Go is called with mu held and not closed

	watchEnded chan struct{} // closed when there is no watch and will be none; nil before Close
}

// FromPEM returns a provider of the identity in three PEM texts. The server's
// certificate must be signed by one in caCertPEM. The client shows clientCertPEM (leaf
// first, then any intermediates) and proves it with clientKeyPEM (PKCS #8, PKCS #1 or
// SEC 1, not encrypted).
//
// PEM that is empty, broken or does not belong together, and a certificate that is
// expired, not yet valid or not for client authentication are errors, which name the
// argument and the reason. Byte order marks, the line ends of any system, indentation, text
// between the blocks and a missing line break between two blocks are accepted. A root
// that Go's crypto/x509 cannot parse is left out as long as there is another: it is
// logged at Warn, and is in [Info].Unreadable.
func FromPEM(caCertPEM, clientCertPEM, clientKeyPEM []byte, opts ...Option) (*Provider, error) {
	names := [3]string{"caCertPEM", "clientCertPEM", "clientKeyPEM"}
	identity, err := parseIdentity(caCertPEM, clientCertPEM, clientKeyPEM, names, time.Now())
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	fixed := func(context.Context, time.Duration) (material, error) { return identity, nil }
	return newProvider(bounded[material]{call: fixed}, opts)
}

// FromFiles is [FromPEM] for certificates that are renewed in their files: caFile holds
// the roots, certFile the client's certificate and any intermediates, keyFile its private
// key, all PEM. One file may hold the certificate and the key.
//
// The files are read again by every check (see [Provider]). Their content is compared, so
// every way of replacing files is noticed: writing in place, renaming, and the symlink
// that Kubernetes replaces (..data). A certificate that does not match its key, or is
// incomplete, is not used until it is complete: while the newest file is younger than a
// second, its content is taken only when it has not changed for a second. A file that
// cannot be read leaves the current identity active. If its file system hangs, that
// delays a handshake by a second, at most once in a reload interval.
//
// The files are read here for the first time: a file that cannot be read within 10 s
// (the error names its path) and what FromPEM refuses are errors. Pipes are errors too,
// such as a shell's <(command): they can be read only once.
func FromFiles(caFile, certFile, keyFile string, opts ...Option) (*Provider, error) {
	files := &identityFiles{ca: caFile, cert: certFile, key: keyFile}
	return newProvider(bounded[material]{call: files.load, late: files.watched.late}, opts)
}

// FromSource returns a provider of an identity that a function knows: from Vault, a secret
// store, or memory. It is for authorities that certify host names; SPIFFE's certify
// IDs, and its credentials go into grpcpool.NewFactory (see examples/spiffe).
//
// The source is asked here and by every check (see [Provider]), and whenever
// [Provider.Reload] is called, so a source that learns of a new certificate by itself can
// have it used at once. It has 10 s to answer, and 1 s before a handshake. While it fails
// or its answer cannot be used, the current identity stays. A nil source is an error.
func FromSource(source Source, opts ...Option) (*Provider, error) {
	if source == nil {
		return nil, errors.New("identity: FromSource: the source is nil")
	}
	return newProvider(loadFrom(source), opts)
}

// newProvider loads the first identity, and the revocation lists.
func newProvider(identity bounded[material], opts []Option) (*Provider, error) {
	s, err := newSettings(opts)
	if err != nil {
		return nil, err
	}
	p := &Provider{
		identity: identity,
		crls:     loadCRLs(s.crlFiles, s.crlFailClosed),
		settings: s,
		checking: make(chan struct{}, 1),
	}
	if err := p.check(context.Background(), loadTimeout, 0); err != nil {
		return nil, err
	}
	p.replacer.OnUse(p.startOrEndWatch)
	return p, nil
}

var errNotMade = errors.New("identity: the Provider is nil or empty; make one with FromPEM, FromFiles or FromSource")

// ready returns errNotMade for a nil or zero Provider.
func (p *Provider) ready() error {
	if p == nil || p.current.Load() == nil {
		return errNotMade
	}
	return nil
}

// DialOption makes a channel use the provider's identity. With scale.NewClient the
// connections of the channel are also replaced when the identity changes.
func (p *Provider) DialOption() grpc.DialOption {
	return grpc.WithTransportCredentials(p.Credentials())
}

// Credentials are transport credentials that show the newest identity in every handshake.
// In scale.NewClient and grpcpool.NewFactory they do what [Provider.DialOption] does,
// unless they are wrapped in other credentials.
func (p *Provider) Credentials() credentials.TransportCredentials {
	return &rotatingCredentials{provider: p}
}

// Reload checks for a new identity now, and takes it without waiting for files to be
// unchanged for a second. The error says why the newest is not in use. It is for programs
// that learn of new certificates, by a signal or a watch; there is no need to call it.
func (p *Provider) Reload(ctx context.Context) error {
	if err := p.ready(); err != nil {
		return err
	}
	return p.check(ctx, loadTimeout, 0)
}

// Close ends the watch for new identities and waits for it. It does not close channels,
// and the provider can still be used: handshakes check for a new identity all the same.
// There is no need to call it, since the watch also ends with the last channel. The error
// names what hangs and has not returned within a second, such as a file whose file system
// does not answer, or the log's handler; one goroutine waits for it until it does.
func (p *Provider) Close() error {
	if p.ready() != nil {
		return nil
	}
	p.mu.Lock()
	p.closed = true
	if p.endWatch != nil {
		p.endWatch()
		p.endWatch = nil
	}
	ended := p.watchEnded
	if ended == nil {
		ended = make(chan struct{})
		p.watchEnded = ended
		go func() {
			defer close(ended)
			p.watches.Wait()
		}()
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done(): // only a log handler can hold up a watch
		return errors.New("identity: closing: the watch for new identities has not ended: the log's handler does not return")
	}
	select {
	case p.checking <- struct{}{}:
		defer func() { <-p.checking }()
	case <-ctx.Done():
		return errors.New("identity: closing: a check for a new identity is still running, for a handshake or Reload")
	}
	for _, err := range []error{p.identity.wait(ctx), p.crls.wait(ctx)} {
		if err != nil {
			return fmt.Errorf("identity: closing: a goroutine is still waiting: %w", err)
		}
	}
	return nil
}

// Info describes the identity that new connections show. It is the zero Info for a nil or
// zero Provider.
func (p *Provider) Info() Info {
	if p.ready() != nil {
		return Info{}
	}
	g, now := p.current.Load(), time.Now()
	leaf := g.identity.Certificate.Leaf
	info := Info{
		Generation: g.number,
		Subject:    leaf.Subject.String(),
		Serial:     serial(leaf),
		NotBefore:  leaf.NotBefore,
		NotAfter:   leaf.NotAfter,
		Expiry:     expiryOf(leaf.NotBefore, leaf.NotAfter, now),
		LoadedAt:   g.loadedAt,
		Unreadable: g.identity.unreadable,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	info.CheckedAt, info.LastError = p.checkedAt, p.lastErr
	return info
}
