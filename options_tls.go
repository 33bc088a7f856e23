package grpcpool

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	defaultReloadInterval = 10 * time.Second
	defaultReplaceWithin  = 15 * time.Second
)

// tlsSettings are what the options of the mutual TLS factories add up to.
type tlsSettings struct {
	optionSet string // the name of one that was used; "" if none was

	source        CertificateSource // nil: not set
	minVersion    uint16
	serverName    string // "": from the target
	verify        []func(tls.ConnectionState) error
	pins          []pin
	crlFiles      []string
	crlFailClosed bool
	interval      time.Duration // from one check to the next
	within        time.Duration // for replacing connections
}

func defaultTLSSettings() tlsSettings {
	return tlsSettings{minVersion: tls.VersionTLS13, interval: defaultReloadInterval, within: defaultReplaceWithin}
}

// tlsOption is an option that only the mutual TLS factories take.
func tlsOption(name string, set func(*tlsSettings) error) FactoryOption {
	return func(cfg *factoryConfig) error {
		cfg.tls.optionSet = name
		if err := set(&cfg.tls); err != nil {
			return fmt.Errorf("grpcpool: %s: %w", name, err)
		}
		return nil
	}
}

// WithMinTLSVersion lowers the oldest TLS version that the mutual TLS factories
// accept to tls.VersionTLS12; the default is tls.VersionTLS13. Nothing older can
// be had. It is an error with NewFactory, whose credentials settle it.
func WithMinTLSVersion(version uint16) FactoryOption {
	return tlsOption("WithMinTLSVersion", func(s *tlsSettings) error {
		if version != tls.VersionTLS12 && version != tls.VersionTLS13 {
			return fmt.Errorf("%s is not supported, use tls.VersionTLS12 or tls.VersionTLS13", tls.VersionName(version))
		}
		s.minVersion = version
		return nil
	})
}

// WithServerName sets the name that the server's certificate must be valid for, in
// place of the host of the server's address: for a server that is dialled by an IP
// address or through a tunnel. It is also the name in SNI, and the :authority of RPCs
// unless grpc.WithAuthority sets another.
func WithServerName(name string) FactoryOption {
	return tlsOption("WithServerName", func(s *tlsSettings) error {
		if err := checkServerName(name); err != nil {
			return err
		}
		s.serverName = name
		return nil
	})
}

// checkServerName refuses what stands in no certificate. It does not judge host names
// otherwise: crypto/x509 compares odd ones too.
func checkServerName(name string) error {
	switch {
	case name != strings.TrimSpace(name):
		return fmt.Errorf("%q is not a host name or IP address: it begins or ends with white space, such as a line break from a file or a command", name)
	case name == "", strings.ContainsFunc(name, func(r rune) bool { return r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("%q is not a host name or IP address", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }):
		return fmt.Errorf("%q is not ASCII; write an international name as certificates have it (xn--...)", name)
	}
	return nil
}

// WithCertificateSource lets NewMutualTLSFactory take its identity from source,
// whose three PEM arguments must then be nil: Vault, a secret store, memory. It is
// for authorities that vouch for host names; SPIFFE's vouch for IDs, and its
// credentials go into NewFactory (see examples/spiffe).
//
// The source is both polled and told of: it is asked by the constructor, every 10 s
// while a channel of the factory is open (see WithReloadInterval), before a
// handshake if a second has passed since it was last asked, and whenever Reload is
// called, which a source that learns of a new certificate by itself can have done
// at once. It has 10 s to answer, before a handshake 1 s. While it fails or its
// answer cannot be used, the old identity stays, as with files that are broken (see
// NewMutualTLSFactoryFromFiles). An identity that differs replaces the factory's
// connections in the same way.
func WithCertificateSource(source CertificateSource) FactoryOption {
	return tlsOption("WithCertificateSource", func(s *tlsSettings) error {
		if source == nil {
			return errors.New("the source is nil")
		}
		s.source = source
		return nil
	})
}

// WithReloadInterval sets the time from one look at the files, CRL files, or the
// certificate source to the next. The default is 10 s.
func WithReloadInterval(interval time.Duration) FactoryOption {
	return tlsOption("WithReloadInterval", func(s *tlsSettings) error {
		if interval <= 0 {
			return fmt.Errorf("%v is not a positive time", interval)
		}
		s.interval = interval
		return nil
	})
}

// WithReplaceWithin sets within what time after a new identity was taken all
// connections made under the old one have begun to make way. Longer spreads the
// handshakes out. The default is 15 s: together with the reload interval a
// connection is on a new certificate within 30 s of its coming.
func WithReplaceWithin(within time.Duration) FactoryOption {
	return tlsOption("WithReplaceWithin", func(s *tlsSettings) error {
		if within <= 0 {
			return fmt.Errorf("%v is not a positive time", within)
		}
		s.within = within
		return nil
	})
}

// WithVerifyConnection adds a check of the server to every handshake, after the
// usual ones of its chain and its name, which it cannot weaken: an error refuses
// the connection and stands in the error of the dial. Its argument's VerifiedChains
// are set. It is also called when a session is resumed (tls.Config.VerifyConnection),
// and may be called concurrently. With several, all must agree. A handshake waits for
// it, and is given up with its dial if it does not return.
func WithVerifyConnection(verify func(tls.ConnectionState) error) FactoryOption {
	return tlsOption("WithVerifyConnection", func(s *tlsSettings) error {
		if verify == nil {
			return errors.New("the function is nil")
		}
		s.verify = append(s.verify, verify)
		return nil
	})
}

// WithPinnedKeys accepts only servers in whose verified chain, from the leaf to the
// root, some certificate has one of these public keys, on top of the usual checks. A
// pin is the base64 of the SHA-256 of the SubjectPublicKeyInfo (RFC 7469 section
// 2.4), with or without "sha256/" before it, as this prints it:
//
//	openssl x509 -in ca.pem -noout -pubkey | openssl pkey -pubin -outform der |
//	  openssl dgst -sha256 -binary | openssl base64
//
// Pin the next key too before the present one is replaced.
func WithPinnedKeys(pins ...string) FactoryOption {
	return tlsOption("WithPinnedKeys", func(s *tlsSettings) error {
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
// again as those of NewMutualTLSFactoryFromFiles are, with every factory; a new
// list that revokes something else replaces the connections too. While a file cannot
// be used the lists read from it before stay, beside the newest of the others.
//
// Where no list covers a certificate, or the list's NextUpdate has passed, nothing
// is known of it: failClosed refuses it then, and otherwise it is accepted. Roots
// need no list. A list may be for a part of its issuer's certificates (RFC 5280 section
// 5.2.5): for end entities or authorities only, for some reasons only, or for those
// that name its distribution point; it covers no others, though what it revokes is
// revoked. A certificate that names no distribution point is covered by any. Delta
// and indirect lists, and those of attribute certificates, are refused.
func WithCRLFiles(failClosed bool, files ...string) FactoryOption {
	return tlsOption("WithCRLFiles", func(s *tlsSettings) error {
		if len(files) == 0 || slices.Contains(files, "") {
			return errors.New("want the path of at least one file, and none that is empty")
		}
		s.crlFiles, s.crlFailClosed = append(s.crlFiles, files...), s.crlFailClosed || failClosed
		return nil
	})
}
