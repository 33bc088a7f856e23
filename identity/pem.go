package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// pemText is a PEM text with harmless mistakes corrected, and its blocks.
type pemText struct {
	text   []byte
	blocks []*pem.Block
}

var indentedMarker = regexp.MustCompile(`(?m)^[ \t]+-----(BEGIN|END) `)

// readPEM reads a text. Byte order marks, the line ends of other systems, indentation,
// and a missing line break between two concatenated files are no error, since what was
// meant is clear. kind is the type that is wanted: an error says why there is no block of
// it, or why not all of them could be read.
func readPEM(data []byte, kind pemKind) (pemText, error) {
	if len(bytes.TrimSpace(bytes.ReplaceAll(data, []byte("\ufeff"), nil))) == 0 {
		return pemText{}, fmt.Errorf("is empty, want a PEM %s", kind.noun)
	}
	if isUTF16(data) {
		return pemText{}, errors.New("is UTF-16 text, as PowerShell and some editors write it; save it as ASCII or UTF-8")
	}
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		return pemText{}, errors.New(notPEM(data, kind))
	}
	text := bytes.ReplaceAll(data, []byte("\ufeff"), nil)
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("----------BEGIN "), []byte("-----\n-----BEGIN "))
	text = indentedMarker.ReplaceAll(text, []byte("-----$1 "))
	p := pemText{text: text}
	read := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		p.blocks = append(p.blocks, block)
		if kind.is(block.Type) {
			read++
		}
	}
	// pem.Decode skips what it cannot read: the last certificates of a file that is being
	// written, for example.
	if begun := markers(text, kind); len(begun) > read {
		return pemText{}, fmt.Errorf("has %s of which %d can be read: %s", kind.count(len(begun)), read, brokenBlock(text, begun))
	}
	if read == 0 {
		return pemText{}, errors.New(onlyOthers(p.blocks, kind))
	}
	return p, nil
}

// pemKind is a type of block.
type pemKind struct{ label, noun string }

var (
	certificateKind    = pemKind{"CERTIFICATE", "certificate"}
	privateKeyKind     = pemKind{"PRIVATE KEY", "private key"}
	revocationListKind = pemKind{"X509 CRL", "revocation list"}
)

// is reports whether a block is of the kind. Keys have several types with the same ending.
func (k pemKind) is(blockType string) bool {
	return blockType == k.label || k == privateKeyKind && strings.HasSuffix(blockType, " "+k.label)
}

func (k pemKind) count(n int) string {
	if n == 1 {
		return "1 " + k.noun
	}
	return fmt.Sprintf("%d %ss", n, k.noun)
}

// markers are the offsets at which blocks of a kind begin.
func markers(text []byte, kind pemKind) (at []int) {
	const begin, end = "-----BEGIN ", "-----"
	for offset := 0; ; {
		i := bytes.Index(text[offset:], []byte(begin))
		if i < 0 {
			return at
		}
		offset += i
		name, _, _ := bytes.Cut(text[offset+len(begin):], []byte(end))
		if kind.is(string(name)) {
			at = append(at, offset)
		}
		offset += len(begin)
	}
}

// brokenBlock says what is wrong with the first block that cannot be read. begun are the
// offsets at which blocks begin.
func brokenBlock(text []byte, begun []int) string {
	for i, at := range begun {
		block := text[at:]
		if i+1 < len(begun) {
			block = text[at:begun[i+1]]
		}
		lineStart := bytes.LastIndexByte(text[:at], '\n') + 1
		first, _, _ := bytes.Cut(block, []byte("\n"))
		_, after, _ := bytes.Cut(first[len("-----BEGIN "):], []byte("-----"))
		where := func() string { return fmt.Sprintf("the one on line %d", bytes.Count(text[:at], []byte("\n"))+1) }
		switch decoded, _ := pem.Decode(block); {
		case bytes.HasPrefix(after, []byte(`\n`)):
			return where() + ` has the two characters \n in place of each line break; replace them by line breaks`
		case len(bytes.TrimSpace(after)) > 0:
			return where() + " has lost its line breaks; put BEGIN, the base64, and END on lines of their own"
		case lineStart < at:
			return where() + " has something before its BEGIN; put BEGIN at the beginning of a line"
		case !bytes.Contains(block, []byte("\n-----END ")):
			return where() + " has no END line: is the file complete?"
		case decoded == nil:
			return where() + " is not base64, or its END is of another type: is the file complete?"
		}
	}
	return "is the file complete?"
}

// onlyOthers says which other blocks there are.
func onlyOthers(blocks []*pem.Block, kind pemKind) string {
	found := make([]string, 0, len(blocks))
	hint := ""
	for _, block := range blocks {
		found = append(found, fmt.Sprintf("%.40q", block.Type))
		switch block.Type {
		case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
			hint = "; a request is not a certificate: an authority has to sign it first"
		case "TRUSTED CERTIFICATE", "X509 CERTIFICATE":
			hint = "; openssl x509 -in FILE writes it as CERTIFICATE"
		case "PKCS7":
			hint = "; openssl pkcs7 -print_certs -in FILE writes its certificates"
		case "PUBLIC KEY", "RSA PUBLIC KEY":
			hint = "; a public key is not enough"
		}
	}
	if len(found) == 0 {
		return fmt.Sprintf(`is not PEM (no "-----BEGIN %s-----" block)`, kind.label)
	}
	return fmt.Sprintf("holds no %s, only %s%s", kind.noun, strings.Join(found, ", "), hint)
}

func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) ||
		bytes.Contains(data, []byte("B\x00E\x00G\x00I\x00N"))
}

// notPEM says what a text without any BEGIN seems to be.
func notPEM(data []byte, kind pemKind) string {
	text := string(bytes.TrimSpace(data))
	switch {
	case binaryKind(data) != "":
		return "is " + binaryKind(data)
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return "is a Java key store, want PEM"
	case strings.HasPrefix(strings.Trim(text, `"'`), "LS0tLS1CRUdJTi"): // "-----BEGIN"
		return "is the base64 of PEM, as in the data of a Kubernetes Secret; decode it first"
	case strings.HasPrefix(text, "MI"): // a long SEQUENCE
		return fmt.Sprintf(`is not PEM: it has no lines "-----BEGIN %s-----" and "-----END %s-----" around its base64`, kind.label, kind.label)
	case len(text) < 200 && !strings.ContainsAny(text, "\n\x00") && strings.ContainsAny(text, `/\.`):
		return "is not PEM, it looks like a path; want the content of the file, or use FromFiles (NewMutualTLSFactoryFromFiles)"
	default:
		return fmt.Sprintf(`is not PEM (no "-----BEGIN %s-----" block)`, kind.label)
	}
}

// binaryKind says what a binary file is, and how to get PEM from it. It is "" for a text.
func binaryKind(data []byte) string {
	if _, err := x509.ParseCertificate(data); err == nil {
		return "a certificate in DER, want PEM (openssl x509 -inform der -in FILE)"
	}
	_, pkcs8 := x509.ParsePKCS8PrivateKey(data)
	_, pkcs1 := x509.ParsePKCS1PrivateKey(data)
	_, sec1 := x509.ParseECPrivateKey(data)
	switch {
	case pkcs8 == nil, pkcs1 == nil, sec1 == nil:
		return "a private key in DER, want PEM (openssl pkey -inform der -in FILE)"
	case isPKCS12(data):
		return "PKCS #12 (.p12, .pfx), want PEM (openssl pkcs12 -nodes -in FILE)"
	case len(data) > 1 && data[0] == 0x30 && data[1] >= 0x80: // a SEQUENCE longer than 127 bytes
		return "DER or another binary format, want PEM"
	default:
		return ""
	}
}

// isPKCS12 recognizes a PFX (RFC 7292 section 4): version 3, and a ContentInfo.
func isPKCS12(data []byte) bool {
	var pfx struct {
		Version  int
		AuthSafe struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue `asn1:"optional"`
		}
	}
	_, err := asn1.Unmarshal(data, &pfx)
	return err == nil && pfx.Version == 3
}
