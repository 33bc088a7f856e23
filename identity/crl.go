package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// revocations are the lists that are in use. A nil *revocations allows everything.
type revocations struct {
	lists      []*revocationList
	failClosed bool
}

// revocationList is one list, with its entries by serial number.
type revocationList struct {
	*x509.RevocationList

	scope   issuingDistributionPoint
	revoked map[string]time.Time // by the bytes of the serial number
	signed  sync.Map             // signature by the DER of an issuer: a list may be megabytes long
}

// signedBy says why issuer has not signed the list, or nil if it has.
func (l *revocationList) signedBy(issuer *x509.Certificate) error {
	known, ok := l.signed.Load(string(issuer.Raw))
	if !ok {
		known = signature{l.CheckSignatureFrom(issuer)}
		l.signed.Store(string(issuer.Raw), known)
	}
	return known.(signature).err //nolint:forcetypeassert // nothing else is stored
}

type signature struct{ err error }

// crlFiles are the files that lists are read from. Its methods are called one at a time
// (see bounded).
type crlFiles struct {
	files      []crlFile
	failClosed bool
	current    *revocations // nil: not every file has been read yet

	reading atomic.Int64 // the index of the file that is being read, or was last
}

// late is the error of a load that has not ended, and names the file. It may be called
// while load runs.
func (f *crlFiles) late(after time.Duration, cause error) error {
	return f.files[f.reading.Load()].watched.late(after, cause)
}

type crlFile struct {
	path    string
	watched watchedFiles
	parsed  [][]byte // the content that lists was made from; nil: there was none yet
	lists   []*revocationList
}

func loadCRLs(paths []string, failClosed bool) bounded[*revocations] {
	if len(paths) == 0 {
		return bounded[*revocations]{call: func(context.Context, time.Duration) (*revocations, error) {
			return nil, nil // nil revocations allow everything
		}}
	}
	f := &crlFiles{failClosed: failClosed, files: make([]crlFile, len(paths))}
	for i, path := range paths {
		f.files[i].path = path
	}
	return bounded[*revocations]{call: f.load, late: f.late}
}

// load reads every file. One that cannot be used does not affect the others: the lists
// that it held before stay, beside the newest of the others, and there is an error too.
func (f *crlFiles) load(_ context.Context, settled time.Duration) (*revocations, error) {
	var failed error
	settling, changed, whole := false, false, true
	for i := range f.files {
		f.reading.Store(int64(i))
		file := &f.files[i]
		fresh, err := file.load(settled)
		settling = settling || errors.Is(err, errSettling)
		if err != nil && !errors.Is(err, errSettling) {
			failed = cmp.Or(failed, err)
		}
		changed, whole = changed || fresh, whole && file.parsed != nil
	}
	switch {
	case !whole:
		return nil, cmp.Or(failed, errSettling)
	case changed:
		f.current = &revocations{failClosed: f.failClosed}
		for i := range f.files {
			f.current.lists = append(f.current.lists, f.files[i].lists...)
		}
	}
	if failed == nil && settling {
		failed = errSettling
	}
	return f.current, failed
}

// load reports whether there is something new.
func (f *crlFile) load(settled time.Duration) (fresh bool, err error) {
	contents, err := f.watched.read(settled, f.path)
	switch {
	case errors.Is(err, errSettling):
		return false, err
	case err != nil:
		return false, fmt.Errorf("CRL file: %w", err)
	case sameContents(contents, f.parsed):
		return false, nil
	}
	lists, err := parseRevocationLists(contents[0])
	if err != nil {
		return false, fmt.Errorf("CRL file %q: %w", f.path, err)
	}
	f.parsed, f.lists = contents, lists
	return true, nil
}

// parseRevocationLists reads one DER list or any number of PEM ones.
func parseRevocationLists(data []byte) ([]*revocationList, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		list, err := parseRevocationList(data)
		if err != nil {
			return nil, err
		}
		return []*revocationList{list}, nil
	}
	read, err := readPEM(data, revocationListKind)
	if err != nil {
		return nil, err
	}
	var lists []*revocationList
	for _, block := range read.blocks {
		if !revocationListKind.is(block.Type) {
			continue
		}
		list, err := parseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, nil
}

func parseRevocationList(der []byte) (*revocationList, error) {
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("not a revocation list in PEM or DER: %w", err)
	}
	scope, err := scopeOf(parsed)
	if err != nil {
		return nil, fmt.Errorf("the list of %q cannot be used: %w", parsed.Issuer, err)
	}
	list := &revocationList{RevocationList: parsed, scope: scope, revoked: make(map[string]time.Time, len(parsed.RevokedCertificateEntries))}
	for _, e := range parsed.RevokedCertificateEntries {
		list.revoked[string(e.SerialNumber.Bytes())] = e.RevocationTime
	}
	return list, nil
}

// check refuses a connection if each of its verified chains has a revoked certificate.
func (r *revocations) check(state *tls.ConnectionState) error {
	if r == nil {
		return nil
	}
	var first error
	now := time.Now()
	for _, chain := range state.VerifiedChains {
		err := r.checkChain(chain, now)
		if err == nil {
			return nil
		}
		first = cmp.Or(first, err)
	}
	if first == nil && r.failClosed {
		return errors.New("CRL: no chain was verified") // cannot happen: the usual checks come first
	}
	return first
}

func (r *revocations) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i, cert := range chain[:max(0, len(chain)-1)] { // the root is trusted because it is configured
		if err := r.checkCertificate(cert, chain[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

func (r *revocations) checkCertificate(cert, issuer *x509.Certificate, now time.Time) error {
	covered := false
	var unusable error
	for _, list := range r.lists {
		if !bytes.Equal(list.RawIssuer, cert.RawIssuer) {
			continue
		}
		if err := list.signedBy(issuer); err != nil {
			unusable = fmt.Errorf("not signed by it: %w", err)
			continue
		}
		// What an old list revokes is still revoked, and so is what a list revokes outside
		// its scope.
		if at, ok := list.revoked[string(cert.SerialNumber.Bytes())]; ok {
			return fmt.Errorf("CRL: certificate %q (serial %x) was revoked at %s",
				cert.Subject, cert.SerialNumber, at.UTC().Format(time.RFC3339))
		}
		if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
			unusable = fmt.Errorf("out of date since %s", list.NextUpdate.UTC().Format(time.RFC3339))
			continue
		}
		if err := list.scope.covers(cert); err != nil {
			unusable = err
			continue
		}
		covered = true
	}
	switch {
	case covered || !r.failClosed:
		return nil
	case unusable != nil:
		return fmt.Errorf("CRL: nothing is known of certificate %q: the list of %q is %w", cert.Subject, cert.Issuer, unusable)
	default:
		return fmt.Errorf("CRL: nothing is known of certificate %q: there is no list of %q", cert.Subject, cert.Issuer)
	}
}

// sameEntries reports whether r and other revoke the same certificates.
func (r *revocations) sameEntries(other *revocations) bool {
	if r == nil || other == nil {
		return r == other
	}
	return slices.Equal(r.entries(), other.entries())
}

// entries are all revoked certificates, sorted, each as its issuer and serial number.
func (r *revocations) entries() []string {
	var all []string
	for _, list := range r.lists {
		for serial := range list.revoked {
			all = append(all, string(list.RawIssuer)+"\x00"+serial)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
