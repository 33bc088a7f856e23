//go:build unix

package proxy_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/oauth"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The cases with credentials for each call. They want Google's token servers: here a
// server on loopback gives out the tokens and the service checks them. Clients send
// such credentials over TLS only. The proxy asks for a certificate and for its own
// token besides, so that each call has headers for both.
//
// Not here: google_default_credentials and compute_engine_channel_creds. Their
// channel credentials trust the system's authorities or speak ALTS, and show no client
// certificate, so that no proxy of ours lets them in.
func TestGRPCsOwnCasesWithCredentialsPass(t *testing.T) {
	a := newAccount(t)
	t.Setenv("GCE_METADATA_HOST", a.metadataHost)
	service := &checked{TestServiceServer: interop.NewTestServer(), account: a}
	s := startServer(t, service)
	token, wantToken := tokenGuard(t)
	transport, wantCertificate := certificateGuard(t)
	p := startProxy(t, s.certs, s.addr, onTCP(wantToken, wantCertificate)...)
	for _, test := range []struct {
		name        string
		credentials func(context.Context) (credentials.PerRPCCredentials, error) // nil: the case brings its own
		run         func(context.Context, testpb.TestServiceClient)
		scope       string
	}{
		{"compute_engine_creds", func(context.Context) (credentials.PerRPCCredentials, error) {
			return oauth.NewComputeEngine(), nil
		}, func(ctx context.Context, tc testpb.TestServiceClient) {
			interop.DoComputeEngineCreds(ctx, tc, accountEmail, accountScope)
		}, accountScope},
		{"service_account_creds", func(context.Context) (credentials.PerRPCCredentials, error) {
			return oauth.NewServiceAccountFromFile(a.keyFile, accountScope)
		}, func(ctx context.Context, tc testpb.TestServiceClient) {
			interop.DoServiceAccountCreds(ctx, tc, a.keyFile, accountScope)
		}, accountScope},
		{"jwt_token_creds", func(context.Context) (credentials.PerRPCCredentials, error) {
			return oauth.NewJWTAccessFromFile(a.keyFile)
		}, func(ctx context.Context, tc testpb.TestServiceClient) {
			interop.DoJWTTokenCreds(ctx, tc, a.keyFile)
		}, ""},
		{"oauth2_auth_token", func(ctx context.Context) (credentials.PerRPCCredentials, error) {
			return oauth.TokenSource{TokenSource: oauth2.StaticTokenSource(interop.GetToken(ctx, a.keyFile, accountScope))}, nil
		}, func(ctx context.Context, tc testpb.TestServiceClient) {
			interop.DoOauth2TokenCreds(ctx, tc, a.keyFile, accountScope)
		}, accountScope},
		{"per_rpc_creds", nil, func(ctx context.Context, tc testpb.TestServiceClient) {
			interop.DoPerRPCCreds(ctx, tc, a.keyFile, accountScope)
		}, accountScope},
		{"jwt_token_creds on a stream", func(context.Context) (credentials.PerRPCCredentials, error) {
			return oauth.NewJWTAccessFromFile(a.keyFile)
		}, func(ctx context.Context, tc testpb.TestServiceClient) { interop.DoPingPong(ctx, tc) }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := within(t, soon)
			opts := []grpc.DialOption{
				grpc.WithTransportCredentials(transport), grpc.WithAuthority(apiName), grpc.WithPerRPCCredentials(token),
			}
			if test.credentials != nil {
				c, err := test.credentials(ctx)
				if err != nil {
					t.Fatal(err)
				}
				opts = append(opts, grpc.WithPerRPCCredentials(c))
			}
			test.run(ctx, testpb.NewTestServiceClient(p.clientAt(p.tcp(), opts...)))
			// The cases are content with an empty user.
			if seen := service.calls(); !slices.Equal(seen, []caller{{accountEmail, test.scope}}) {
				t.Errorf("the server saw calls of %q, want one of %s for %q", seen, accountEmail, test.scope)
			}
		})
	}
}

func TestTheProxysTokenAndTheServersTokenDoNotMix(t *testing.T) {
	a := newAccount(t)
	service := &checked{TestServiceServer: interop.NewTestServer(), account: a}
	s := startServer(t, service)
	token, wantToken := tokenGuard(t)
	certificate, wantCertificate := certificateGuard(t)
	for name, front := range map[string]struct {
		flags     []string
		transport credentials.TransportCredentials
	}{
		"plaintext": {wantToken, insecure.NewCredentials()},
		"TLS":       {slices.Concat(wantToken, wantCertificate), certificate},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, s.certs, s.addr, onTCP(front.flags)...)
			cc := p.clientAt(p.tcp(), grpc.WithTransportCredentials(front.transport), grpc.WithAuthority(apiName))
			checkTokens(t, cc, service, string(token))
		})
	}
}

// checkTokens makes calls with tokens in the right and the wrong headers.
func checkTokens(t *testing.T, cc *grpc.ClientConn, service *checked, proxys string) {
	t.Helper()
	servers := service.account.newToken(accountScope)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	const fromProxy, fromServer = "grpcpool proxy: the call has no valid token", "the server refuses: "
	for _, test := range []struct {
		name   string
		md     metadata.MD
		refuse string // "": nobody
	}{
		{"both", metadata.Pairs("authorization", "Bearer "+servers, "proxy-authorization", "Bearer "+proxys), ""},
		{"the server's in both", metadata.Pairs("authorization", "Bearer "+servers, "proxy-authorization", "Bearer "+servers), fromProxy},
		{"the proxy's in both", metadata.Pairs("authorization", "Bearer "+proxys, "proxy-authorization", "Bearer "+proxys), fromServer},
		{"exchanged", metadata.Pairs("authorization", "Bearer "+proxys, "proxy-authorization", "Bearer "+servers), fromProxy},
		{"the server's alone", metadata.Pairs("authorization", "Bearer "+servers), fromProxy},
		{"the proxy's alone", metadata.Pairs("proxy-authorization", "Bearer "+proxys), fromServer},
		{"signed", metadata.Pairs("authorization", signed(t, service.account.key), "proxy-authorization", "Bearer "+proxys), ""},
		{"signed by a stranger", metadata.Pairs("authorization", signed(t, stranger), "proxy-authorization", "Bearer "+proxys), fromServer},
	} {
		ctx := metadata.NewOutgoingContext(within(t, soon), test.md)
		answer, err := testpb.NewTestServiceClient(cc).UnaryCall(ctx, &testpb.SimpleRequest{FillUsername: true, FillOauthScope: true})
		stream := overStream(ctx, cc)
		for what, err := range map[string]error{"a unary call": err, "a stream": stream} {
			switch {
			case test.refuse == "" && err != nil:
				t.Errorf("%s: %s failed: %v", test.name, what, err)
			case test.refuse != "" && (status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), test.refuse)):
				t.Errorf("%s: %s ended with %v, want UNAUTHENTICATED: %s", test.name, what, err, test.refuse)
			}
		}
		if got := (caller{answer.GetUsername(), answer.GetOauthScope()}); test.refuse == "" && got != (caller{accountEmail, accountScope}) {
			t.Errorf("%s: the server took the caller for %q", test.name, got)
		}
		want := 2
		if test.refuse == fromProxy {
			want = 0
		}
		if n := len(service.calls()); n != want {
			t.Errorf("%s: the server saw %d calls, want %d", test.name, n, want)
		}
	}
}

// overStream makes a streaming call, with one message each way.
func overStream(ctx context.Context, cc *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	// What was wrong is what Recv says.
	_ = stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 1}}})
	_, err = stream.Recv()
	return err
}

// signed is an authorization header that says what the service wants to read.
func signed(t *testing.T, key *rsa.PrivateKey) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": accountEmail, "aud": "https://" + apiName + "/", "scope": accountScope, "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + token
}
