package identity_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/grpctest"
	"github.com/davidwartell/go-grpcpool/internal/pki"
)

// wantDial makes a channel and wants it to fail for the reasons, or, without any,
// to succeed.
func wantDial(t *testing.T, l *pki.Localhost, address string, reasons []string, opts ...identity.Option) {
	t.Helper()
	f, err := newFactory(l, address, opts)
	if err != nil {
		t.Fatal(err)
	}
	wantConnection(t, f, reasons...)
}

func wantConnection(t *testing.T, f grpcpool.ConnectionFactory, reasons ...string) {
	t.Helper()
	conn, err := f.NewConnection(testContext(t))
	if len(reasons) > 0 {
		wantError(t, err, append(slices.Clone(reasons), "grpcpool: connecting to")...)
		wantNotOK(t, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func pinOf(t testing.TB, pair pki.Pair) string {
	t.Helper()
	hash := sha256.Sum256(leafOf(t, pair).RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(hash[:])
}

// rootPin is the pin of an authority.
func rootPin(t testing.TB, ca *pki.CA) string {
	t.Helper()
	block, _ := pem.Decode(ca.PEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(hash[:])
}

func TestOnlyPinnedKeysAreAccepted(t *testing.T) {
	l, other := localhost(t), localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, l.Server))
	for name, test := range map[string]struct {
		pins    []string
		refused []string
	}{
		"the leaf's":          {[]string{pinOf(t, l.Server)}, nil},
		"the root's":          {[]string{rootPin(t, l.CA)}, nil},
		"as HTTP writes it":   {[]string{"sha256/" + pinOf(t, l.Server)}, nil},
		"as curl writes it":   {[]string{"sha256//" + pinOf(t, l.Server)}, nil},
		"one of two":          {[]string{pinOf(t, other.Server), pinOf(t, l.Server)}, nil},
		"another's":           {[]string{pinOf(t, other.Server)}, []string{"pin mismatch", "CN=server", "among the 1"}},
		"the client's own":    {[]string{pinOf(t, l.Client)}, []string{"pin mismatch"}},
		"another's authority": {[]string{rootPin(t, other.CA)}, []string{"pin mismatch"}},
	} {
		t.Run(name, func(t *testing.T) {
			wantDial(t, l, address, test.refused, identity.WithPinnedKeys(test.pins...))
		})
	}
}

// A pin is an additional check: a server that the roots do not lead to is still refused,
// and so is one with another name.
func TestAPinDoesNotReplaceTheUsualChecks(t *testing.T) {
	l, stranger := localhost(t), localhost(t)
	elsewhere := issue(t, l.CA, pki.Request{Hosts: []string{"other.example"}})
	client := &pki.Localhost{CA: l.CA, Client: l.Client}
	wantDial(t, client, startTLS(t, serverTLS(t, l.CA, stranger.Server)), []string{"unknown authority"},
		identity.WithPinnedKeys(pinOf(t, stranger.Server)))
	wantDial(t, client, startTLS(t, serverTLS(t, l.CA, elsewhere)), []string{"doesn't contain any IP SANs"},
		identity.WithPinnedKeys(pinOf(t, elsewhere)))
}

func TestVerifyConnectionSeesAVerifiedServerAndCanRefuseIt(t *testing.T) {
	l := localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, l.Server))
	var names []string
	accept := identity.WithVerifyConnection(func(state tls.ConnectionState) error {
		if len(state.VerifiedChains) == 0 || state.DidResume {
			t.Errorf("%d verified chains, resumed %v", len(state.VerifiedChains), state.DidResume)
		}
		names = append(names, state.PeerCertificates[0].Subject.CommonName)
		return nil
	})
	refuse := identity.WithVerifyConnection(func(tls.ConnectionState) error { return errors.New("not on a Sunday") })
	wantDial(t, l, address, nil, accept, accept)
	wantDial(t, l, address, []string{"WithVerifyConnection: not on a Sunday", "CN=server"}, accept, refuse)
	if want := []string{"server", "server", "server"}; !slices.Equal(names, want) {
		t.Errorf("called for %q, want %q", names, want)
	}

	// It is not called for a server that is refused anyway.
	wantDial(t, localhost(t), address, []string{"unknown authority"}, identity.WithVerifyConnection(func(tls.ConnectionState) error {
		t.Error("called for a server that the roots do not lead to")
		return nil
	}))
}

// A check that hangs, or a key that hangs, does not outlast the dial's deadline.
func TestADialDoesNotWaitForEverForWhatHangsInItsHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		server := grpctest.Start(t, grpctest.Config{InMemory: true, TLS: serverTLS(t, l.CA, l.Server)})
		fast, held := identityOf(t, l.CA, l.Client), make(chan struct{})
		slow := fast
		slow.Certificate.PrivateKey = slowKey{fast.Certificate.PrivateKey.(crypto.Signer), held}
		for name, test := range map[string]struct {
			identity identity.Identity
			opts     options
		}{
			"the check": {fast, options{identity.WithVerifyConnection(func(tls.ConnectionState) error { <-held; return nil })}},
			"the key":   {slow, nil},
		} {
			f, err := fromSource((&memory{identity: test.identity}).source, server.Target(), test.opts,
				grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			begun := time.Now()
			_, err = f.NewConnection(ctx)
			cancel()
			wantError(t, err, "did not finish the handshake")
			if took := time.Since(begun); took != 2*time.Second {
				t.Errorf("%s: the dial took %v, want its 2 s", name, took)
			}
		}
		close(held)
		synctest.Wait()
	})
}

// slowKey signs when held is closed.
type slowKey struct {
	crypto.Signer

	held <-chan struct{}
}

func (k slowKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	<-k.held
	return k.Signer.Sign(random, digest, opts)
}

// A server that asks for certificates of certain authorities is shown the certificate even
// if it is of another, so that its error says what is wrong, and not that there was none.
func TestTheServerSaysWhyItRefusesTheCertificate(t *testing.T) {
	l, stranger := localhost(t), newCA(t, "strange CA")
	client := &pki.Localhost{CA: l.CA, Client: issue(t, stranger, pki.Request{})}
	wantDial(t, client, startTLS(t, serverTLS(t, l.CA, l.Server)), []string{"unknown certificate authority"})
}

// No handshake resumes an earlier session, which would keep the earlier identity.
func TestSessionsAreNotResumed(t *testing.T) {
	l := localhost(t)
	var resumed atomic.Int64
	config := serverTLS(t, l.CA, l.Server)
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if state.DidResume {
			resumed.Add(1)
		}
		return nil
	}
	f, err := newFactory(l, startTLS(t, config), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wantConnection(t, f)
	}
	if n := resumed.Load(); n != 0 {
		t.Errorf("%d of 3 handshakes resumed a session", n)
	}
}

// chainServer is a server whose certificate an intermediate authority has issued.
type chainServer struct {
	*pki.Localhost

	intermediate *pki.CA
	address      string
}

func startChain(t *testing.T) *chainServer {
	t.Helper()
	l := localhost(t)
	intermediate, err := l.CA.Intermediate("intermediate")
	if err != nil {
		t.Fatal(err)
	}
	l.Server = issue(t, intermediate, pki.Request{Hosts: []string{"127.0.0.1"}})
	withChain := pki.Pair{CertPEM: slices.Concat(l.Server.CertPEM, intermediate.PEM), KeyPEM: l.Server.KeyPEM}
	return &chainServer{l, intermediate, startTLS(t, serverTLS(t, l.CA, withChain))}
}

func crl(t testing.TB, ca *pki.CA, nextUpdate time.Time, revoked ...pki.Pair) []byte {
	t.Helper()
	list, err := ca.RevocationList(nextUpdate, revoked...)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestARevokedServerIsRefused(t *testing.T) {
	s := startChain(t)
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	rootList, list := crl(t, s.CA, later), crl(t, s.intermediate, later)
	revoking := crl(t, s.intermediate, later, s.Server)
	revokingIntermediate := crl(t, s.CA, later, pki.Pair{CertPEM: s.intermediate.PEM})
	forged, err := pki.NewCA("intermediate") // the name of the authority, and another key
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(revoking)

	open, closed := []string(nil), []string{"CRL: ", "refused"}
	for name, test := range map[string]struct {
		files               [][]byte
		failOpen, failClose []string // nil: accepted
	}{
		"revokes nothing":             {[][]byte{rootList, list}, open, nil},
		"in one file":                 {[][]byte{slices.Concat(rootList, list)}, open, nil},
		"revokes another":             {[][]byte{rootList, crl(t, s.intermediate, later, s.Client)}, open, nil},
		"revokes the server":          {[][]byte{rootList, revoking}, []string{"CRL: ", "was revoked at", "CN=server"}, closed},
		"in DER":                      {[][]byte{rootList, block.Bytes}, []string{"was revoked at"}, closed},
		"revokes the intermediate":    {[][]byte{revokingIntermediate, list}, []string{"was revoked at", "CN=intermediate"}, closed},
		"revokes it, and is old":      {[][]byte{rootList, crl(t, s.intermediate, past, s.Server)}, []string{"was revoked at"}, closed},
		"is old":                      {[][]byte{rootList, crl(t, s.intermediate, past)}, open, []string{"CRL: ", "out of date since"}},
		"is missing for intermediate": {[][]byte{rootList}, open, []string{"CRL: ", "no list of ", "CN=intermediate"}},
		"is missing for the root":     {[][]byte{list}, open, []string{"CRL: ", "no list of"}},
		"is signed by another":        {[][]byte{rootList, crl(t, forged, later, s.Server)}, open, []string{"CRL: ", "not signed by it"}},
	} {
		t.Run(name, func(t *testing.T) {
			var paths []string
			for i, content := range test.files {
				paths = append(paths, filepath.Join(t.TempDir(), string(rune('a'+i))))
				write(t, paths[i], content)
			}
			wantDial(t, s.Localhost, s.address, test.failOpen, identity.WithCRLFiles(false, paths...))
			wantDial(t, s.Localhost, s.address, test.failClose, identity.WithCRLFiles(true, paths...))
		})
	}
}

func TestCRLFilesThatCannotBeUsedAreRefusedAtConstruction(t *testing.T) {
	l := localhost(t)
	dir := t.TempDir()
	good := crl(t, l.CA, time.Now().Add(time.Hour))
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"missing":     {nil, "no such file"},
		"garbage":     {[]byte("garbage"), "not a revocation list"},
		"certificate": {l.CA.PEM, "no revocation list"},
		"cut off":     {cutOff(good), "of which 0 can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if test.content != nil {
				write(t, path, test.content)
			}
			_, err := newFactory(l, "localhost:1", options{identity.WithCRLFiles(true, path)})
			wantError(t, err, "identity: CRL file", path, test.want)
		})
	}
}

// A new list that revokes the server stops new connections to it, and a broken list
// leaves the old one active.
func TestRevocationListsAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := localhost(t)
		server := grpctest.Start(t, grpctest.Config{InMemory: true, TLS: serverTLS(t, l.CA, l.Server)})
		path := filepath.Join(t.TempDir(), "crl.pem")
		later := time.Now().Add(time.Hour)
		write(t, path, crl(t, l.CA, later))
		f, err := newFactory(l, server.Target(), options{identity.WithCRLFiles(true, path)},
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := f.NewConnection(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()

		write(t, path, crl(t, l.CA, later, l.Server))
		time.Sleep(12 * time.Second)
		wantConnection(t, f, "was revoked at")
		write(t, path, []byte("garbage"))
		time.Sleep(12 * time.Second)
		wantConnection(t, f, "was revoked at")
		wantError(t, f.Identity().LastError, path, "not a revocation list")
		write(t, path, crl(t, l.CA, later))
		time.Sleep(12 * time.Second)
		wantConnection(t, f)

		time.Sleep(time.Hour) // the list's NextUpdate passes
		wantConnection(t, f, "out of date since")
		if id := f.Identity(); id.Generation != 1 || id.LastError != nil {
			t.Errorf("new lists made %+v of the identity", id)
		}
	})
}

// A file of lists that is broken, or still being written, does not keep the new lists in
// another from being used.
func TestABrokenRevocationListDoesNotKeepAnotherOut(t *testing.T) {
	s := startChain(t)
	later, dir := time.Now().Add(time.Hour), t.TempDir()
	broken, good := filepath.Join(dir, "broken.pem"), filepath.Join(dir, "good.pem")
	write(t, broken, crl(t, s.CA, later))
	write(t, good, crl(t, s.intermediate, later))
	f, err := newFactory(s.Localhost, s.address, options{identity.WithCRLFiles(true, broken, good)})
	if err != nil {
		t.Fatal(err)
	}
	write(t, broken, []byte("garbage"))
	wantError(t, f.Reload(testContext(t)), broken, "not a revocation list")
	wantConnection(t, f) // what was read of the broken one before counts still
	write(t, good, crl(t, s.intermediate, later, s.Server))
	wantError(t, f.Reload(testContext(t)), broken, "not a revocation list")
	wantConnection(t, f, "was revoked at")

	write(t, good, crl(t, s.intermediate, later))
	write(t, broken, crl(t, s.CA, later, pki.Pair{CertPEM: s.intermediate.PEM}))
	if err := f.Reload(testContext(t)); err != nil {
		t.Error(err)
	}
	wantConnection(t, f, "CN=intermediate", "was revoked at")
}

// An identity that cannot be used does not keep new revocations from being used, and a
// list that cannot be used does not affect the identity.
func TestIdentityAndRevocationListsDoNotWaitForEachOther(t *testing.T) {
	l := localhost(t)
	address := startTLS(t, serverTLS(t, l.CA, l.Server))
	files, path := writeFiles(t, l, inPlace), filepath.Join(t.TempDir(), "crl.pem")
	later := time.Now().Add(time.Hour)
	write(t, path, crl(t, l.CA, later))
	f, err := fromFiles(files, address, identity.WithCRLFiles(true, path))
	if err != nil {
		t.Fatal(err)
	}
	wantConnection(t, f)

	write(t, files.key, []byte("garbage"))
	write(t, path, crl(t, l.CA, later, l.Server))
	wantError(t, f.Reload(testContext(t)), files.key, "not PEM")
	wantConnection(t, f, "was revoked at")

	write(t, path, []byte("garbage"))
	next := issue(t, l.CA, pki.Request{})
	files.put(t, l.CA.PEM, next)
	wantError(t, f.Reload(testContext(t)), path, "not a revocation list")
	wantConnection(t, f, "was revoked at")
	if id := f.Identity(); id.Serial != serialOf(t, next) || id.LastError == nil {
		t.Errorf("the identity is %+v, want the new one, and that the list is broken", id)
	}
}

func TestBadOptionsAreRefusedAtConstruction(t *testing.T) {
	l := localhost(t)
	short := base64.StdEncoding.EncodeToString([]byte("short"))
	for name, opts := range map[string]options{
		"WithLogger":           {identity.WithLogger(nil)},
		"WithMinTLSVersion":    {identity.WithMinTLSVersion(tls.VersionTLS11), identity.WithMinTLSVersion(0)},
		"WithReloadInterval":   {identity.WithReloadInterval(0)},
		"WithReplaceWithin":    {identity.WithReplaceWithin(-1)},
		"WithVerifyConnection": {identity.WithVerifyConnection(nil)},
		"WithCRLFiles":         {identity.WithCRLFiles(true), identity.WithCRLFiles(true, "")},
		"WithPinnedKeys": {
			identity.WithPinnedKeys(), identity.WithPinnedKeys(""), identity.WithPinnedKeys(short),
			identity.WithPinnedKeys("sha1/" + pinOf(t, l.Server)), identity.WithPinnedKeys(pinOf(t, l.Server) + "="),
		},
	} {
		for _, opt := range opts {
			_, err := identity.FromPEM(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, opt)
			wantError(t, err, "identity: "+name+": ")
		}
	}
	_, err := identity.FromPEM(l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, identity.WithMinTLSVersion(tls.VersionTLS12), nil)
	wantError(t, err, "identity: option 2 is nil")
	_, err = identity.FromSource(nil)
	wantError(t, err, "identity: FromSource: the source is nil")
}

func TestTLS12IsSpokenOnlyWhenAskedFor(t *testing.T) {
	l := localhost(t)
	config := serverTLS(t, l.CA, l.Server)
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	server := grpctest.Start(t, grpctest.Config{TLS: config})

	strict, err := newFactory(l, server.Addr(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = strict.NewConnection(testContext(t))
	wantError(t, err, "protocol version")

	lax, err := newFactory(l, server.Addr(), options{identity.WithMinTLSVersion(tls.VersionTLS12)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := lax.NewConnection(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// With this setting, the default of go.mod files before Go 1.23, crypto/tls leaves a
// pair's Leaf nil.
func TestAPairWithoutItsLeafParsedIsEnough(t *testing.T) {
	t.Setenv("GODEBUG", "x509keypairleaf=0")
	l := localhost(t)
	pair := identityOf(t, l.CA, l.Client)
	if pair.Certificate.Leaf != nil {
		t.Fatal("the setting has no effect")
	}
	files := writeFiles(t, l, inPlace)
	for name, construct := range map[string]func() (*factory, error){
		"PEM": func() (*factory, error) { return newFactory(l, "localhost:1", nil) },
		"files": func() (*factory, error) {
			return fromFiles(files, "localhost:1")
		},
		"source": func() (*factory, error) {
			return fromSource((&memory{identity: pair}).source, "localhost:1", nil)
		},
	} {
		f, err := construct()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id := f.Identity(); id.Serial != serialOf(t, l.Client) {
			t.Errorf("%s: the identity is %+v", name, id)
		}
	}
}
