package identity

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaIndicator           = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidReasonCode               = asn1.ObjectIdentifier{2, 5, 29, 21} // has no effect
	oidInvalidityDate           = asn1.ObjectIdentifier{2, 5, 29, 24} // likewise
	oidDistributionPoints       = asn1.ObjectIdentifier{2, 5, 29, 31}
)

// issuingDistributionPoint says which certificates a list is for (RFC 5280 section 5.2.5).
type issuingDistributionPoint struct {
	Point              distributionPointName `asn1:"optional,tag:0"`
	OnlyUsers          bool                  `asn1:"optional,tag:1"`
	OnlyAuthorities    bool                  `asn1:"optional,tag:2"`
	OnlySomeReasons    asn1.BitString        `asn1:"optional,tag:3"`
	Indirect           bool                  `asn1:"optional,tag:4"`
	OnlyAttributeCerts bool                  `asn1:"optional,tag:5"`
}

type distributionPointName struct {
	FullName     []asn1.RawValue                   `asn1:"optional,tag:0"`
	RelativeName pkix.RelativeDistinguishedNameSET `asn1:"optional,tag:1"`
}

// scopeOf reads the scope of a list. An error says that the list cannot be used: its
// serial numbers are not those of its issuer's certificates, or it is not complete.
func scopeOf(list *x509.RevocationList) (issuingDistributionPoint, error) {
	var scope issuingDistributionPoint
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(oidIssuingDistributionPoint):
			if _, err := asn1.Unmarshal(e.Value, &scope); err != nil {
				if scope = (issuingDistributionPoint{}); e.Critical {
					return scope, fmt.Errorf("its issuing distribution point cannot be parsed: %w", err)
				}
			}
		case e.Id.Equal(oidDeltaIndicator):
			return scope, errors.New("it is a delta list, which is not supported; use the complete one")
		case e.Critical:
			return scope, fmt.Errorf("it has the critical extension %v, which is not supported", e.Id)
		}
	}
	switch {
	case scope.Indirect:
		return scope, errors.New("it is an indirect list, for certificates of other authorities too, which is not supported")
	case scope.OnlyAttributeCerts:
		return scope, errors.New("it is for attribute certificates, which TLS does not use")
	case scope.OnlyUsers && scope.OnlyAuthorities:
		return scope, errors.New("it says that it is for end entities only and for authorities only")
	}
	return scope, checkEntries(list)
}

// checkEntries finds entries that may mean something other than their serial number.
func checkEntries(list *x509.RevocationList) error {
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical && !e.Id.Equal(oidReasonCode) && !e.Id.Equal(oidInvalidityDate) {
				return fmt.Errorf("an entry has the critical extension %v, which is not supported", e.Id)
			}
		}
	}
	return nil
}

// covers says why a certificate that is not in the list may still be revoked, or nil if
// it is not.
//
// Where an authority divides its certificates among several lists, each certificate
// names its own list, and the list repeats the name: the other lists say nothing of it.
// A certificate that names no list is in the authority's list of all certificates.
func (s *issuingDistributionPoint) covers(cert *x509.Certificate) error {
	authority := cert.BasicConstraintsValid && cert.IsCA
	switch {
	case s.OnlyUsers && authority:
		return errors.New("for end entities only")
	case s.OnlyAuthorities && !authority:
		return errors.New("for authorities only")
	case s.OnlySomeReasons.BitLength > 0:
		return errors.New("for some reasons of revocation only")
	case !s.Point.present():
		return nil
	}
	named := distributionPointsOf(cert)
	if len(named) == 0 || slices.ContainsFunc(named, s.Point.sharesNameWith) {
		return nil
	}
	return errors.New("for another distribution point than the certificate's")
}

func (n *distributionPointName) present() bool { return len(n.FullName)+len(n.RelativeName) > 0 }

// sharesNameWith compares full names. Relative ones are rare, and count as different.
func (n *distributionPointName) sharesNameWith(other distributionPointName) bool {
	return slices.ContainsFunc(n.FullName, func(name asn1.RawValue) bool {
		return slices.ContainsFunc(other.FullName, func(o asn1.RawValue) bool { return bytes.Equal(name.FullBytes, o.FullBytes) })
	})
}

// distributionPointsOf are the names of the lists that a certificate would be in (RFC 5280
// section 4.2.1.13).
func distributionPointsOf(cert *x509.Certificate) (names []distributionPointName) {
	var points []struct {
		Name    distributionPointName `asn1:"optional,tag:0"`
		Reasons asn1.BitString        `asn1:"optional,tag:1"`
		Issuer  []asn1.RawValue       `asn1:"optional,tag:2"`
	}
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidDistributionPoints) {
			continue
		}
		if _, err := asn1.Unmarshal(e.Value, &points); err != nil {
			return []distributionPointName{{}} // names something
		}
		for _, p := range points {
			names = append(names, p.Name)
		}
	}
	return names
}
