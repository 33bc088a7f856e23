//go:build unix

package proxy_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	accountEmail = "robot@project.test"
	accountScope = "https://scopes.test/read"

	// apiName is the server's name as clients know it. What they sign for a server has
	// the name in it that they call, which is the proxy's: so the proxy's certificate
	// has this name too.
	apiName = "api.test"
)

// account is a service account as Google has them, with the servers that give out its
// tokens: one for whoever has the key, one for whoever runs on its machine.
type account struct {
	keyFile      string
	key          *rsa.PrivateKey
	tokenServer  *httptest.Server
	metadataHost string // for GCE_METADATA_HOST

	mu     sync.Mutex        // guards tokens
	tokens map[string]string // that were given out, and their scopes
}

func newAccount(t *testing.T) *account {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	a := &account{key: key, tokens: make(map[string]string)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", a.serveToken)
	mux.HandleFunc("GET /computeMetadata/v1/instance/service-accounts/default/token", a.serveMachine)
	a.tokenServer = httptest.NewServer(mux)
	t.Cleanup(a.tokenServer.Close)
	a.metadataHost = strings.TrimPrefix(a.tokenServer.URL, "http://")
	a.keyFile = a.writeKey(t)
	return a
}

// writeKey makes the file that the account's programs have.
func (a *account) writeKey(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]string{
		"type":           "service_account",
		"client_email":   accountEmail,
		"private_key_id": "1",
		"private_key":    string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_uri":      a.tokenURL(),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (a *account) tokenURL() string { return a.tokenServer.URL + "/token" }

// serveToken gives a token for an assertion (RFC 7523, section 2.1).
func (a *account) serveToken(w http.ResponseWriter, r *http.Request) {
	if grant := r.PostFormValue("grant_type"); grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		http.Error(w, "unknown grant "+grant, http.StatusBadRequest)
		return
	}
	who, err := a.verify(r.PostFormValue("assertion"), a.tokenURL())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	a.giveToken(w, who.scope)
}

// serveMachine gives a token as Compute Engine's metadata server does.
func (a *account) serveMachine(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata-Flavor") != "Google" {
		http.Error(w, "want Metadata-Flavor: Google", http.StatusForbidden)
		return
	}
	a.giveToken(w, accountScope)
}

func (a *account) giveToken(w http.ResponseWriter, scope string) {
	w.Header().Set("Content-Type", "application/json")
	err := json.NewEncoder(w).Encode(map[string]any{"access_token": a.newToken(scope), "token_type": "Bearer", "expires_in": 3600})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (a *account) newToken(scope string) string {
	token := rand.Text()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[token] = scope
	return token
}

// caller is who makes a call, and what for.
type caller struct{ user, scope string }

// verify checks what somebody with the account's key has signed.
func (a *account) verify(signed, audience string) (caller, error) {
	claims := struct {
		jwt.RegisteredClaims

		Scope string `json:"scope"`
	}{}
	_, err := jwt.ParseWithClaims(signed, &claims, func(*jwt.Token) (any, error) { return &a.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(accountEmail), jwt.WithAudience(audience), jwt.WithExpirationRequired())
	return caller{claims.Issuer, claims.Scope}, err
}

// callerOf reads the authorization header of a call: a token that was given out, or
// what the caller signed itself.
func (a *account) callerOf(md metadata.MD) (caller, error) {
	values := md.Get("authorization")
	if len(values) != 1 {
		return caller{}, fmt.Errorf("%d authorization headers, want 1", len(values))
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok {
		return caller{}, errors.New("want a bearer token")
	}
	a.mu.Lock()
	scope, given := a.tokens[token]
	a.mu.Unlock()
	if given {
		return caller{accountEmail, scope}, nil
	}
	return a.verify(token, "https://"+apiName+"/")
}

// checked lets in who has the account's credentials.
type checked struct {
	testpb.TestServiceServer

	account *account

	mu   sync.Mutex // guards seen
	seen []caller   // of calls that came, in their order; empty: refused
}

// check fails with OutOfRange, which nothing else here does, if what was meant for
// the proxy came through.
func (c *checked) check(ctx context.Context) (caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	who, err := c.account.callerOf(md)
	c.mu.Lock()
	c.seen = append(c.seen, who)
	c.mu.Unlock()
	switch {
	case len(md.Get("proxy-authorization")) > 0:
		return who, status.Error(codes.OutOfRange, "the server got the proxy's token")
	case err != nil:
		return who, status.Errorf(codes.Unauthenticated, "the server refuses: %v", err)
	}
	return who, nil
}

// calls returns who has called since it was last asked.
func (c *checked) calls() []caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = nil
	return seen
}

// UnaryCall implements testpb.TestServiceServer.
func (c *checked) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	who, err := c.check(ctx)
	if err != nil {
		return nil, err
	}
	out, err := c.TestServiceServer.UnaryCall(ctx, in)
	if err != nil {
		return nil, err
	}
	if in.GetFillUsername() {
		out.Username = who.user
	}
	if in.GetFillOauthScope() {
		out.OauthScope = who.scope
	}
	return out, nil
}

// FullDuplexCall implements testpb.TestServiceServer.
func (c *checked) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	if _, err := c.check(stream.Context()); err != nil {
		return err
	}
	return c.TestServiceServer.FullDuplexCall(stream)
}
