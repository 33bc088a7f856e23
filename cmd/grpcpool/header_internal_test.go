//go:build unix

package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// token is a file with what guarded wants.
func token(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("Bearer user\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The proxy's test is TestTheProxyPassesWhatTheServerAnswersWhateverItsHealthCheckSays.
func TestPingWorksWithAServerThatAuthenticatesEveryMethod(t *testing.T) {
	address := guarded(t)
	for want, more := range map[string][]string{
		"the health check returned Unauthenticated: no token\n": nil,
		" NOT_SERVING\n": {"--header", "Authorization: @" + token(t)},
	} {
		got := runLine(t.Context(), append([]string{"ping", "--plaintext", "--count", "2", "--interval", "1ms", address}, more...)...)
		if got.status != exitOK || strings.Count(got.stdout, want) != 2 || !strings.Contains(got.stdout, "2 pings, 2 answered, 0 % lost, 1 connection\n") {
			t.Errorf("status %d, want %q\n%s%s", got.status, want, got.stdout, got.stderr)
		}
	}
}

func TestBenchWorksWithAServerThatAuthenticatesEveryMethod(t *testing.T) {
	address := guarded(t)
	header := []string{"--header", "authorization: Bearer user"}
	for name, test := range map[string]struct {
		more    []string
		refusal string
	}{
		"the health check without a token": {nil, "Unauthenticated: no token"},
		"the health check with a token":    {header, ""},
		"a method with a token":            {append([]string{"--method", "grpc.testing.TestService/EmptyCall"}, header...), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := runLine(t.Context(), append([]string{"bench", "--json", "--plaintext", "--callers", "2", "--duration", "200ms", address}, test.more...)...)
			var doc benchDocument
			if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || got.status != exitOK || len(doc.Results) != 2 {
				t.Fatalf("status %d, %v in:\n%s%s", got.status, err, got.stdout, got.stderr)
			}
			for _, r := range doc.Results {
				if r.Calls == 0 || r.Failed != 0 || r.P50 <= 0 || r.Refusal != test.refusal {
					t.Errorf("%+v, want calls, none of them failed, and the refusal %q", r, test.refusal)
				}
			}
		})
	}
	t.Run("a method without a token", func(t *testing.T) {
		got := runLine(t.Context(), "bench", "--plaintext", "--duration", "200ms", "--method", "grpc.testing.TestService/EmptyCall", address)
		if got.status != exitFailed || !strings.Contains(got.stderr, "no token") {
			t.Errorf("status %d, %q", got.status, got.stderr)
		}
	})
}

// The harm that this must not do: a server that is not there for calls is not measured.
func TestBenchSaysWhichAnswerItHasMeasured(t *testing.T) {
	for code, measured := range map[codes.Code]bool{
		codes.Unimplemented: true, codes.Unauthenticated: true, codes.PermissionDenied: true, codes.NotFound: true,
		codes.Unavailable: false, codes.ResourceExhausted: false, codes.Internal: false, codes.Unknown: false,
	} {
		got := runLine(t.Context(), "bench", "--plaintext", "--callers", "2", "--duration", "100ms", answering(t, status.New(code, "as\nasked\x1b[2J")))
		told := strings.Count(got.stdout, `the server answered "`+code.String()+`: as asked\\u001b[2J"; that answer was measured`) == 2
		if (got.status == exitOK) != measured || told != measured {
			t.Errorf("%v: status %d\n%s%s", code, got.status, got.stdout, got.stderr)
		}
	}
}

func TestAHeaderThatCannotBeSentIsMisuse(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer secret":             `--header must be "name: value"`,
		"grpc-status: secret":       `"grpc-status" is not the name of metadata`,
		"token-bin: secret":         `"token-bin" is not the name of metadata`,
		": secret":                  `"" is not the name of metadata`,
		"my name: secret":           `"my name" is not the name of metadata`,
		"authorization: secr\net":   `the value of "authorization" has characters`,
		"authorization: @/no/such/": "--header: open /no/such/",
	} {
		for _, command := range []string{"ping", "bench"} {
			got := runLine(t.Context(), command, "a:1", "--header", header)
			if got.status != exitMisuse || !strings.Contains(got.stderr, want) || strings.Contains(got.stderr, "secr") {
				t.Errorf("%s --header %q: status %d, stderr %q, want %q", command, header, got.status, got.stderr, want)
			}
		}
	}
}

// A server that resets a stream speaks HTTP/2, and is there.
func TestAStreamThatIsResetAnswersAPing(t *testing.T) {
	address := resetting(t)
	got := runLine(t.Context(), "ping", "--plaintext", "--count", "1", address)
	if want := "the server reset the stream of the health check\n"; got.status != exitOK || !strings.Contains(got.stdout, want) {
		t.Errorf("status %d, want %q\n%s", got.status, want, got.stdout)
	}
}

func resetting(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := h2test.Start(l, h2test.WithFault(h2test.ResetsCalls))
	t.Cleanup(s.Close)
	return l.Addr().String()
}
