package poolz_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/shared"
)

func from(addr string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = addr }
}

func host(name string) func(*http.Request) {
	return func(r *http.Request) { r.Host = name }
}

func header(key, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(key, value) }
}

func TestOnlyThisMachineGetsThePage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"from 127.0.0.1", from("127.0.0.1:1"), 200},
		{"from another loopback address", from("127.8.9.10:1"), 200},
		{"from ::1", from("[::1]:1"), 200},
		{"from IPv4 in IPv6", from("[::ffff:127.0.0.1]:1"), 200},
		{"from the network", from("10.1.2.3:1"), 403},
		{"from a link-local address", from("[fe80::1%eth0]:1"), 403},
		{"from everywhere", from("0.0.0.0:1"), 403},
		{"from a Unix socket", from("@"), 403},
		{"from nowhere", from(""), 403},

		{"as localhost", host("localhost:8080"), 200},
		{"as localhost without a port", host("LOCALHOST"), 200},
		{"as localhost with a dot", host("localhost.:8080"), 200},
		{"as a name under localhost", host("shop.localhost:8080"), 200},
		{"as 127.0.0.1", host("127.0.0.1:8080"), 200},
		{"as 127.0.0.1 without a port", host("127.0.0.1"), 200},
		{"as ::1", host("[::1]:8080"), 200},
		{"as ::1 without a port", host("[::1]"), 200},
		{"as a name that was pointed here", host("rebound.example:8080"), 403},
		{"as a name that looks like localhost", host("localhost.example.com"), 403},
		{"as a name that ends like it", host("notlocalhost"), 403},
		{"as an address of the network", host("10.1.2.3:8080"), 403},
		{"as 0.0.0.0", host("0.0.0.0:8080"), 403},
		{"as a name with credentials", host("localhost:x@evil.example"), 403},
		{"as nobody", host(""), 403},

		{"through a proxy", header("X-Forwarded-For", "127.0.0.1"), 403},
		{"through a proxy that says so the new way", header("Forwarded", "for=127.0.0.1"), 403},
		{"through nginx", header("X-Real-IP", "127.0.0.1"), 403},
		{"through a proxy that hides the host", header("X-Forwarded-Host", "localhost"), 403},
		{"through a proxy that signs", header("Via", "1.1 proxy"), 403},
		{"through a proxy that says nothing", header("X-Forwarded-For", ""), 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := handler(busy("secret"))
			for _, query := range []string{"", "?format=json", "?format=fragment"} {
				w := ask(h, query, tt.change)
				if w.Code != tt.want {
					t.Errorf("%q: status %d, want %d: %s", query, w.Code, tt.want, w.Body)
				}
				if tt.want == 403 && (strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), "WithAccess")) {
					t.Errorf("%q: the refusal is %q, want what to do and no secret", query, w.Body)
				}
			}
		})
	}
}

func TestWithAccessDecidesInPlaceOfTheCheck(t *testing.T) {
	h := poolz.Handler([]poolz.Pool{busy("secret")}, poolz.WithAccess(func(r *http.Request) bool {
		return r.Header.Get("X-User") == "admin"
	}))
	far := func(r *http.Request) { r.RemoteAddr, r.Host = "10.1.2.3:4", "shop.example.com" }
	if w := ask(h, "", far, header("X-User", "admin")); w.Code != 200 {
		t.Errorf("an allowed request got %d: %s", w.Code, w.Body)
	}
	if w := ask(h, ""); w.Code != 403 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a refused request got %d: %s", w.Code, w.Body)
	}
	if w := ask(poolz.Handler(nil, poolz.WithAccess(nil), nil), "", far); w.Code != 403 {
		t.Errorf("a nil func has let a request in: %d", w.Code)
	}
}

func TestANilArgumentIsNamedInTheAnswer(t *testing.T) {
	var noPool *shared.Pool
	for want, h := range map[string]http.Handler{
		"poolz: Handler: pool 1 of 1 is nil":      handler(nil),
		"poolz: Handler: pool 2 of 2 is nil":      handler(busy("secret"), noPool),
		"poolz: Handler: option 1 of 1 is nil":    poolz.Handler(nil, nil),
		"poolz: WithAccess(nil): want a function": poolz.Handler(nil, poolz.WithAccess(nil)),
	} {
		w := ask(h, "")
		if w.Code != http.StatusInternalServerError || !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("status %d, %q; want 500, %q", w.Code, w.Body, want)
		}
		if w := ask(h, "", from("10.1.2.3:4")); w.Code != http.StatusForbidden {
			t.Errorf("%s: a request from another machine got status %d, want 403", want, w.Code)
		}
	}
}

func TestEveryAnswerHasTheSecurityHeaders(t *testing.T) {
	h := handler(busy("x"))
	answers := map[string]*httptest.ResponseRecorder{
		"page": ask(h, ""), "json": ask(h, "?format=json"), "bad format": ask(h, "?format=xml"),
		"refusal": ask(h, "", from("10.1.2.3:4")),
		"post":    ask(h, "", func(r *http.Request) { r.Method = http.MethodPost }),
	}
	for name, w := range answers {
		for key, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if got := w.Header().Get(key); got != want {
				t.Errorf("%s: %s is %q, want %q", name, key, got, want)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: the policy is %q", name, policy)
		}
		if len(w.Header().Values("Access-Control-Allow-Origin")) > 0 {
			t.Errorf("%s: other origins may read it", name)
		}
	}
	if w := answers["post"]; w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	if w := answers["bad format"]; w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `unknown format "xml": use html or json`) {
		t.Errorf("bad format: status %d, %s", w.Code, w.Body)
	}
}
