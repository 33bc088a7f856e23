package identity_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"path/filepath"
	"testing"
	"time"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// issuingPoint is an issuing distribution point (RFC 5280 section 5.2.5).
type issuingPoint struct {
	Name               pointName      `asn1:"optional,tag:0"`
	OnlyUsers          bool           `asn1:"optional,tag:1"`
	OnlyAuthorities    bool           `asn1:"optional,tag:2"`
	OnlySomeReasons    asn1.BitString `asn1:"optional,tag:3"`
	Indirect           bool           `asn1:"optional,tag:4"`
	OnlyAttributeCerts bool           `asn1:"optional,tag:5"`
}

type pointName struct {
	FullName []asn1.RawValue                   `asn1:"optional,tag:0"`
	Relative pkix.RelativeDistinguishedNameSET `asn1:"optional,tag:1"`
}

func at(urls ...string) (name pointName) {
	for _, url := range urls {
		name.FullName = append(name.FullName, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(url)})
	}
	return name
}

func extension(critical bool, numbers asn1.ObjectIdentifier, value any) pkix.Extension {
	return pkix.Extension{Id: numbers, Critical: critical, Value: must(asn1.Marshal(value))}
}

var (
	oidIssuingPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	someReasons     = asn1.BitString{Bytes: []byte{0x60}, BitLength: 8}
)

func (p issuingPoint) in(critical bool) func(*x509.RevocationList) {
	return func(list *x509.RevocationList) {
		list.ExtraExtensions = append(list.ExtraExtensions, extension(critical, oidIssuingPoint, p))
	}
}

// A list covers the certificates that it is for: it says nothing of others that are not
// in it. What it revokes is revoked in any case.
func TestARevocationListCoversWhatItIsFor(t *testing.T) {
	l := localhost(t)
	const here, elsewhere = "http://ca.test/1.crl", "http://ca.test/2.crl"
	plain := l.Server
	pointing := issue(t, l.CA, pki.Request{Hosts: []string{"127.0.0.1"}, CRLs: []string{"ldap://ca.test/crl", here}})
	later := time.Now().Add(time.Hour)

	for name, test := range map[string]struct {
		scope   issuingPoint
		server  pki.Pair
		unknown string // why the list does not cover the server; "" if it does
	}{
		"the whole list, and where it is":             {issuingPoint{Name: at(here)}, plain, ""},
		"the whole list, and where the server says":   {issuingPoint{Name: at(here)}, pointing, ""},
		"one of several names is the server's":        {issuingPoint{Name: at(elsewhere, here)}, pointing, ""},
		"another part of the list":                    {issuingPoint{Name: at(elsewhere)}, pointing, "for another distribution point"},
		"a relative name":                             {issuingPoint{Name: pointName{Relative: pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "1"}}}}, pointing, "for another distribution point"},
		"no name, where the server says one":          {issuingPoint{OnlyUsers: true}, pointing, ""},
		"end entities only":                           {issuingPoint{Name: at(here), OnlyUsers: true}, plain, ""},
		"end entities only, where the server says":    {issuingPoint{Name: at(here), OnlyUsers: true}, pointing, ""},
		"end entities only, another part of the list": {issuingPoint{Name: at(elsewhere), OnlyUsers: true}, pointing, "for another distribution point"},
		"authorities only":                            {issuingPoint{Name: at(here), OnlyAuthorities: true}, plain, "for authorities only"},
		"some reasons only":                           {issuingPoint{OnlySomeReasons: someReasons}, plain, "for some reasons"},
		"nothing":                                     {issuingPoint{}, plain, ""},
	} {
		for _, critical := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				address := startTLS(t, serverTLS(t, l.CA, test.server))
				path := filepath.Join(t.TempDir(), "crl")
				write(t, path, must(l.CA.RevocationListWith(test.scope.in(critical), later)))
				wantDial(t, l, address, nil, identity.WithCRLFiles(false, path))
				var refused []string
				if test.unknown != "" {
					refused = []string{"CRL: nothing is known of certificate", test.unknown}
				}
				wantDial(t, l, address, refused, identity.WithCRLFiles(true, path))

				write(t, path, must(l.CA.RevocationListWith(test.scope.in(critical), later, test.server)))
				wantDial(t, l, address, []string{"was revoked at"}, identity.WithCRLFiles(false, path))
			})
		}
	}
}

// An intermediate is covered by a list for authorities, its server by one for end
// entities; both together cover the chain.
func TestRevocationListsForPartsOfTheCertificatesAddUp(t *testing.T) {
	s := startChain(t)
	later := time.Now().Add(time.Hour)
	dir := t.TempDir()
	list := func(name string, ca *pki.CA, p issuingPoint, revoked ...pki.Pair) string {
		path := filepath.Join(dir, name)
		write(t, path, must(ca.RevocationListWith(p.in(true), later, revoked...)))
		return path
	}
	users, authorities := issuingPoint{OnlyUsers: true}, issuingPoint{OnlyAuthorities: true}
	ofRoot, ofRootUsers := list("a", s.CA, authorities), list("b", s.CA, users)
	ofIssuer, ofIssuerAuthorities := list("c", s.intermediate, users), list("d", s.intermediate, authorities)
	revoking := list("e", s.CA, authorities, pki.Pair{CertPEM: s.intermediate.PEM})

	wantDial(t, s.Localhost, s.address, nil, identity.WithCRLFiles(true, ofRoot, ofRootUsers, ofIssuer, ofIssuerAuthorities))
	wantDial(t, s.Localhost, s.address, nil, identity.WithCRLFiles(true, ofRoot, ofIssuer))
	wantDial(t, s.Localhost, s.address, []string{"CN=intermediate", "for end entities only"}, identity.WithCRLFiles(true, ofRootUsers, ofIssuer))
	wantDial(t, s.Localhost, s.address, []string{"CN=server", "for authorities only"}, identity.WithCRLFiles(true, ofRoot, ofIssuerAuthorities))
	wantDial(t, s.Localhost, s.address, []string{"CN=intermediate", "was revoked at"}, identity.WithCRLFiles(true, revoking, ofIssuer))
}

// Some authorities mark extensions as critical that have no effect, and write uncritical
// ones in a form that Go does not parse.
func TestARevocationListIsReadThoughPartsOfItAreUnusual(t *testing.T) {
	l := localhost(t)
	for name, change := range map[string]func(*x509.RevocationList){
		"a date of invalidity that is critical": func(list *x509.RevocationList) {
			list.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{extension(true, asn1.ObjectIdentifier{2, 5, 29, 24}, time.Now().UTC())}
		},
		"a distribution point that is neither critical nor DER": func(list *x509.RevocationList) {
			list.ExtraExtensions = []pkix.Extension{{Id: oidIssuingPoint, Value: []byte("x")}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "crl")
			write(t, path, must(l.CA.RevocationListWith(change, time.Now().Add(time.Hour), l.Client)))
			if _, err := newFactory(l, "localhost:1", options{identity.WithCRLFiles(false, path)}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARevocationListThatIsNotCompleteByItselfIsRefusedAtConstruction(t *testing.T) {
	l := localhost(t)
	for name, test := range map[string]struct {
		change func(*x509.RevocationList)
		want   string
	}{
		"indirect":     {issuingPoint{Indirect: true}.in(true), "indirect"},
		"not critical": {issuingPoint{Indirect: true}.in(false), "indirect"},
		"attributes":   {issuingPoint{OnlyAttributeCerts: true}.in(true), "attribute certificates"},
		"contradicts":  {issuingPoint{OnlyUsers: true, OnlyAuthorities: true}.in(true), "for end entities only and for authorities only"},
		"garbage": {func(list *x509.RevocationList) {
			list.ExtraExtensions = []pkix.Extension{{Id: oidIssuingPoint, Critical: true, Value: []byte("x")}}
		}, "issuing distribution point cannot be parsed"},
		"delta": {func(list *x509.RevocationList) {
			list.ExtraExtensions = []pkix.Extension{extension(true, asn1.ObjectIdentifier{2, 5, 29, 27}, 1)}
		}, "delta"},
		"unknown": {func(list *x509.RevocationList) {
			list.ExtraExtensions = []pkix.Extension{extension(true, asn1.ObjectIdentifier{1, 2, 3}, 1)}
		}, "critical extension 1.2.3"},
		"entry of another authority": {func(list *x509.RevocationList) {
			list.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{extension(true, asn1.ObjectIdentifier{2, 5, 29, 29}, 1)}
		}, "an entry has the critical extension 2.5.29.29"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "crl")
			write(t, path, must(l.CA.RevocationListWith(test.change, time.Now().Add(time.Hour), l.Client)))
			_, err := newFactory(l, "localhost:1", options{identity.WithCRLFiles(false, path)})
			wantError(t, err, "identity: CRL file", path, "cannot be used", test.want)
		})
	}
}
