package identity

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
)

// maxUnreadable is how many certificates a text names.
const maxUnreadable = 5

// unreadable are certificates that crypto/x509 cannot parse: a negative serial number,
// a curve that Go does not have. Each is described by a text.
type unreadable []string

func (u unreadable) and(number int, der []byte, why error) unreadable {
	return append(u, fmt.Sprintf("certificate %d (%.200q): %v", number, subjectOf(der), why))
}

// describe lists them after what, on one line. It is "" if there are none.
func (u unreadable) describe(what string) string {
	if len(u) == 0 {
		return ""
	}
	named, more := u, ""
	if n := len(u) - maxUnreadable; n > 0 {
		named, more = u[:maxUnreadable], fmt.Sprintf(", and %d more", n)
	}
	return what + ": " + strings.Join(named, ", ") + more
}

// subjectOf finds the subject of a certificate that crypto/x509 cannot parse, or "".
func subjectOf(der []byte) string {
	var cert struct {
		TBS struct {
			Version              int `asn1:"optional,explicit,default:0,tag:0"`
			Serial               asn1.RawValue
			Algorithm            asn1.RawValue
			Issuer               asn1.RawValue
			Validity             asn1.RawValue
			Subject              pkix.RDNSequence
			SubjectPublicKeyInfo asn1.RawValue // further elements of a SEQUENCE are allowed
		}
	}
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return ""
	}
	return cert.TBS.Subject.String()
}
