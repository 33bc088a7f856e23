package identity

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

const (
	defaultReloadInterval = 10 * time.Second
	defaultReplaceWithin  = 15 * time.Second
)

// Option changes how a Provider works. A nil option, and an option with a wrong argument,
// is an error of the function that makes the provider.
type Option func(*settings) error

// settings are what the options add up to.
type settings struct {
	logger        *slog.Logger
	minVersion    uint16
	verify        []func(tls.ConnectionState) error
	pins          []pin
	crlFiles      []string
	crlFailClosed bool
	interval      time.Duration // from one check of the watch to the next
	within        time.Duration // for replacing connections
}

func newSettings(opts []Option) (settings, error) {
	s := settings{
		logger:     slog.New(slog.DiscardHandler),
		minVersion: tls.VersionTLS13,
		interval:   defaultReloadInterval,
		within:     defaultReplaceWithin,
	}
	for i, opt := range opts {
		if opt == nil {
			return s, fmt.Errorf("identity: option %d is nil", i+1)
		}
		if err := opt(&s); err != nil {
			return s, err
		}
	}
	return s, nil
}

// newOption is an option whose errors begin with its name.
func newOption(name string, set func(*settings) error) Option {
	return func(s *settings) error {
		if err := set(s); err != nil {
			return fmt.Errorf("identity: %s: %w", name, err)
		}
		return nil
	}
}

// WithLogger sets where the provider logs. At Info: a new identity, and a source that works
// again. At Warn, with what to do as the attribute hint: a source that fails, again every ten
// minutes while it does, and certificates that are about to expire, once for each grade (see
// Expiry). The default discards. Keys and certificates are never logged; of certificates the
// attributes are server (the name in it), subject, serial, not_after, and generation (see Info).
// A nil logger is an error.
func WithLogger(logger *slog.Logger) Option {
	return newOption("WithLogger", func(s *settings) error {
		if logger == nil {
			return errors.New("the logger is nil; leave the option out to discard")
		}
		s.logger = logger
		return nil
	})
}

// WithMinTLSVersion lowers the oldest TLS version that is accepted to tls.VersionTLS12.
// The default is tls.VersionTLS13. Anything older is an error.
func WithMinTLSVersion(version uint16) Option {
	return newOption("WithMinTLSVersion", func(s *settings) error {
		if version != tls.VersionTLS12 && version != tls.VersionTLS13 {
			return fmt.Errorf("%s is not supported, use tls.VersionTLS12 or tls.VersionTLS13", tls.VersionName(version))
		}
		s.minVersion = version
		return nil
	})
}

// WithReloadInterval sets how often the watch checks the files, the source and the CRL
// files while there are channels that use the provider. The default is 10 s. An interval
// of 0 or less is an error.
func WithReloadInterval(interval time.Duration) Option {
	return newOption("WithReloadInterval", func(s *settings) error {
		if interval <= 0 {
			return fmt.Errorf("%v is not a positive time", interval)
		}
		s.interval = interval
		return nil
	})
}

// WithReplaceWithin sets how soon after a new identity was taken the replacement of every
// connection that was made under the old one has begun. A longer time spreads the
// handshakes out. The default is 15 s: together with the reload interval, a connection
// shows a new certificate within 30 s. A time of 0 or less is an error.
func WithReplaceWithin(within time.Duration) Option {
	return newOption("WithReplaceWithin", func(s *settings) error {
		if within <= 0 {
			return fmt.Errorf("%v is not a positive time", within)
		}
		s.within = within
		return nil
	})
}

// WithVerifyConnection adds a check of the server to every handshake, after the
// usual checks of its chain and its name, which it cannot weaken: an error refuses
// the connection and is in the error of the dial. Its argument's VerifiedChains
// are set (see tls.Config.VerifyConnection). It may be called concurrently. With several
// functions, all must agree. A handshake waits for it, and is given up with its dial if it
// does not return. A nil function is an error.
func WithVerifyConnection(verify func(tls.ConnectionState) error) Option {
	return newOption("WithVerifyConnection", func(s *settings) error {
		if verify == nil {
			return errors.New("the function is nil")
		}
		s.verify = append(s.verify, verify)
		return nil
	})
}

// WithPinnedKeys accepts only servers in whose verified chain, from the leaf to the
// root, some certificate has one of these public keys, in addition to the usual checks. A
// pin is the base64 of the SHA-256 of the SubjectPublicKeyInfo (RFC 7469 section
// 2.4), with or without "sha256/" before it, as this prints it:
//
//	openssl x509 -in ca.pem -noout -pubkey | openssl pkey -pubin -outform der |
//	  openssl dgst -sha256 -binary | openssl base64
//
// Pin the next key too before the present one is replaced. No pins, and a text that is
// not a pin, are errors.
func WithPinnedKeys(pins ...string) Option {
	return newOption("WithPinnedKeys", func(s *settings) error {
		if len(pins) == 0 {
			return errors.New("no pins")
		}
		for _, text := range pins {
			p, err := parsePin(text)
			if err != nil {
				return err
			}
			s.pins = append(s.pins, p)
		}
		return nil
	})
}

// WithCRLFiles refuses servers that a certificate revocation list in one of the
// files names (RFC 5280 section 5), PEM or DER. A list counts for what its issuer
// has signed, so there is one for each authority of the chain. The files are read
// again by every check (see [Provider]); a new list that revokes something else replaces
// the connections too. While a file cannot be used, the lists read from it before stay
// active, beside the newest of the other files.
//
// Where no list covers a certificate, or the list's NextUpdate has passed, nothing is
// known of it: with failClosed it is refused, otherwise it is accepted. Roots need no
// list. A list may be for a part of its issuer's certificates (RFC 5280 section
// 5.2.5): for end entities or authorities only, for some reasons only, or for those
// that name its distribution point. It covers no others, but what it revokes is
// revoked. A certificate that names no distribution point is covered by any list. Delta
// lists, indirect lists, and lists of attribute certificates are errors, and so are no
// files and an empty path.
func WithCRLFiles(failClosed bool, files ...string) Option {
	return newOption("WithCRLFiles", func(s *settings) error {
		if len(files) == 0 || slices.Contains(files, "") {
			return errors.New("want the path of at least one file, and none that is empty")
		}
		s.crlFiles, s.crlFailClosed = append(s.crlFiles, files...), s.crlFailClosed || failClosed
		return nil
	})
}
