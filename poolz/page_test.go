package poolz_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"
	"google.golang.org/grpc/codes"

	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/shared"
)

// hostile are texts that a peer may send to be shown.
var hostile = []string{
	`<script>alert(1)</script>`,
	`</style><script>alert(1)</script>`,
	`</script><img src=x onerror=alert(1)>`,
	`"><svg onload=alert(1)>`,
	`' onmouseover='alert(1)`,
	`" autofocus onfocus="alert(1)`,
	`javascript:alert(1)`,
	`<!--`, `-->`, `]]>`, `{{.Nonce}}`, "`${alert(1)}`",
	`<meta http-equiv="refresh" content="0;url=//evil.example">`,
	`<base href="//evil.example">`,
	"\x00\x1b[31m\u202e\u2028\xff",
}

// walk calls f for every node of a page.
func walk(n *html.Node, f func(*html.Node)) {
	f(n)
	for c := range n.ChildNodes() {
		walk(c, f)
	}
}

// elements counts the elements of a page by name, and fails for any attribute that
// runs script or fetches something.
func elements(t testing.TB, page string) map[string]int {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]int)
	walk(root, func(n *html.Node) {
		if n.Type != html.ElementNode {
			return
		}
		found[n.Data]++
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "src" || a.Key == "href" || a.Key == "style" || a.Key == "autofocus" {
				t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
			}
		}
	})
	return found
}

func TestTextOfAPeerStaysText(t *testing.T) {
	for _, format := range []string{"", "?format=fragment"} {
		want := elements(t, ask(handler(busy("harmless")), format).Body.String())
		for _, text := range hostile {
			page := ask(handler(busy(text)), format).Body.String()
			got := elements(t, page)
			for name, n := range got {
				if n != want[name] {
					t.Errorf("%q makes %d <%s> on the page %q, want %d", text, n, name, format, want[name])
				}
			}
			if strings.HasPrefix(text, "<") && !strings.Contains(page, html.EscapeString(text)) {
				t.Errorf("%q is not to be seen on the page %q", text, format)
			}
		}
	}
}

// Overrides of the writing direction work in HTML as they do in a terminal, where the
// JSON ends.
func TestTextOfAPeerHasNoControlCharacters(t *testing.T) {
	const unfit = "\x1b\a\r\u009b\u202e\u2066\ufeff\x7f"
	pool := busy("harmless")
	pool.stats.LastError = errors.New(unfit)
	pool.stats.Identity.Subject, pool.stats.Identity.LastError = unfit, errors.New(unfit)
	for i := range pool.stats.Events {
		pool.stats.Events[i].Address, pool.stats.Events[i].Text = unfit, unfit
	}
	for i := range pool.stats.Current.Subchannels {
		pool.stats.Current.Subchannels[i].Address, pool.stats.Current.Subchannels[i].LastError = unfit, unfit
	}
	for _, format := range []string{"", "?format=fragment", "?format=json"} {
		if page := ask(handler(pool), format).Body.String(); strings.ContainsAny(page, unfit) {
			t.Errorf("%q has control characters:\n%q", format, page)
		}
	}
}

func TestEachPageHasANonceOfItsOwn(t *testing.T) {
	h := handler(busy("x"))
	seen := make(map[string]bool)
	for range 3 {
		w := ask(h, "")
		root, err := html.Parse(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		var nonces []string
		walk(root, func(n *html.Node) {
			if n.Type != html.ElementNode || n.Data != "script" && n.Data != "style" {
				return
			}
			for _, a := range n.Attr {
				if a.Key == "nonce" {
					nonces = append(nonces, a.Val)
				}
			}
		})
		if len(nonces) != 2 || nonces[0] != nonces[1] || len(nonces[0]) < 20 || seen[nonces[0]] {
			t.Fatalf("the nonces are %q, want one for the style and the script, and another each time", nonces)
		}
		seen[nonces[0]] = true
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"script-src 'nonce-" + nonces[0] + "';", "style-src 'nonce-" + nonces[0] + "';"} {
			if !strings.Contains(policy, want) {
				t.Errorf("the policy %q does not say %q", policy, want)
			}
		}
	}
}

// wantText fails unless the page says all that; spaces do not count.
func wantText(t *testing.T, page string, want ...string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	walk(root, func(n *html.Node) {
		if n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script" {
			all.WriteString(n.Data + " ")
		}
	})
	said := strings.Join(strings.Fields(all.String()), " ")
	for _, w := range want {
		if !strings.Contains(withoutSpaces(said), withoutSpaces(w)) {
			t.Errorf("the page does not say %q:\n%s", w, said)
		}
	}
}

func withoutSpaces(s string) string { return strings.Join(strings.Fields(s), "") }

func TestThePageShowsWhatIsToBeSeen(t *testing.T) {
	wantText(t, ask(handler(busy("orders:8443")), "").Body.String(),
		"1 pool · grpcpool", "ready", "Leases out 12 345", "Callers waiting 7 + 84 for a stream", "Connections 6 of 20", "Streams 348 of 400",
		"1 234 761 calls on the pool ended · 1 234 567 OK · 1 NotFound · 5 ResourceExhausted · 188 Unavailable",
		"9 dials ( 2 failed ) · 1 234 tests ( 3 failed ) · 1 channel replaced · 4 closed when idle · 2 leases leaked",
		"READY · 3 of 10 connections, 1 dialling · 42 calls waiting for a stream", "retired, closes when its last lease is returned",
		"6 opened · 1 dial failed · 1 lost · 1 ejected · 1 replaced · 1 closed as unused · 4 711 calls waited for a stream · 3 got no stream · 2 of 512 probes failed",
		"Last closed: lost", "3 10.0.3.21:8443 47 min 100 of 100", "37 no limit", "1.00 ms TLS 1.3, 23 h", "TLS 1.2, expired", "none",
		"orders.(*Service).Place (place.go:118) 12 000 2 leaked 4 min",
		"Client certificate Generation 3, loaded 10 min ago Subject orders:8443 Expires in 1 h 30 min orders:8443 orders:8443 Settings",
		"uses an earlier client certificate", "Idle timeout 5 min", "Leaks reported after 1 min", "waited too long", "× 3",
	)
}

// Calls that fail for the server or for the way to it stand out. Others may be the answer that
// the program asked for.
func TestCallsThatFailStandOut(t *testing.T) {
	root, err := html.Parse(ask(handler(busy("x")), "").Body)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string) // the class by the text
	walk(root, func(n *html.Node) {
		for _, code := range []string{" OK", " NotFound", " ResourceExhausted", " Unavailable"} {
			if n.Type == html.TextNode && strings.HasSuffix(n.Data, code) && n.Parent.Data == "span" {
				got[code[1:]] = n.Parent.Attr[0].Val
			}
		}
	})
	want := map[string]string{"OK": "calmtext", "NotFound": "calmtext", "ResourceExhausted": "warntext", "Unavailable": "badtext"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

func TestAnEmptyPageSaysSo(t *testing.T) {
	for want, pools := range map[string][]poolz.Pool{
		"There are no pools.":        {},
		"unnamed pool idle":          {fakePool{stats: shared.Stats{State: shared.StateIdle}}},
		"0 calls on the pool ended":  {fakePool{}},
		"1 call on the pool ended":   {fakePool{stats: shared.Stats{Calls: map[codes.Code]uint64{codes.OK: 1}}}},
		"Nothing has happened":       {fakePool{}},
		"leak detection is off":      {fakePool{}},
		"None. Calls made on":        {fakePool{stats: shared.Stats{Settings: shared.Settings{LeakAfter: 1}}}},
		"Idle timeout never":         {fakePool{}},
		"2 pools · grpcpool":         {fakePool{}, fakePool{}},
		"Leaks reported after off":   {fakePool{}},
		"Wait for ready no Lazy no":  {fakePool{}},
		"Wait for ready no Lazy yes": {fakePool{stats: shared.Stats{Settings: shared.Settings{Lazy: true}}}},
	} {
		wantText(t, ask(handler(pools...), "").Body.String(), want)
	}
}

// document is what a program reads of the JSON.
type document struct {
	Time  string
	Pools []struct {
		Name, State, LastError                              string
		Leases, Waiting, CallsWaiting, Connections, Streams int
		Calls                                               map[string]uint64
		LastClosed                                          struct{ Kind, Text string }
		Subchannels                                         []struct {
			Address, State string
			Retired        bool
			Connections    []struct {
				ID              uint64
				EarlierIdentity bool
				AgeSeconds      float64
				HeardSeconds    *float64
				Limit           *int
				ProbeSeconds    []float64
				TLS             *struct {
					Version     string
					LeftSeconds float64
				}
			}
		}
		Identity *struct {
			Generation  uint64
			Expiry      string
			LeftSeconds float64
		}
		Holders []struct {
			Func          string
			Leases        int
			OldestSeconds float64
		}
		Events []struct {
			Kind, Text string
			Count      int
			AgoSeconds float64
		}
		Settings struct{ IdleTimeoutSeconds, LeakAfterSeconds float64 }
	}
}

func TestJSONHasTheSameData(t *testing.T) {
	w := ask(handler(busy("orders:8443")), "?format=json")
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("the type is %q", got)
	}
	var doc document
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil { //nolint:musttag // names that differ in case only need none
		t.Fatalf("%v in:\n%s", err, w.Body)
	}
	if len(doc.Pools) != 1 || doc.Time == "" {
		t.Fatalf("%d pools at %q", len(doc.Pools), doc.Time)
	}
	p := doc.Pools[0]
	want := func(ok bool, what string, got any) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %+v", what, got)
		}
	}
	want(p.Name == "orders:8443" && p.State == "ready" && p.LastError == p.Name, "the pool", p)
	want(p.Leases == 12345 && p.Waiting == 7 && p.CallsWaiting == 84 && p.Connections == 6 && p.Streams == 348, "the figures", p)
	if diff := cmp.Diff(map[string]uint64{"OK": 1_234_567, "NotFound": 1, "ResourceExhausted": 5, "Unavailable": 188}, p.Calls); diff != "" {
		t.Errorf("the calls: want (-), got (+):\n%s", diff)
	}
	want(p.LastClosed.Kind == "closed_retired", "the end of the last connection", p.LastClosed)
	if len(p.Subchannels) != 2 || p.Subchannels[0].State != "READY" || p.Subchannels[0].Retired || !p.Subchannels[1].Retired {
		t.Fatalf("the subchannels: %+v", p.Subchannels)
	}
	c := p.Subchannels[0].Connections
	want(c[0].AgeSeconds >= 47*60 && *c[0].Limit == 100 && c[0].TLS.LeftSeconds > 23*3600, "a connection", c[0])
	want(len(c[0].ProbeSeconds) == 7 && c[0].ProbeSeconds[0] == 0.0009, "its probes", c[0])
	want(c[1].Limit == nil && c[1].TLS == nil && c[1].HeardSeconds == nil, "a connection of which little is known", c[1])
	want(p.Holders[0].OldestSeconds == 240 && p.Holders[0].Leases == 12000, "the holders", p.Holders)
	want(p.Identity.Generation == 3 && p.Identity.Expiry == "urgent" && p.Identity.LeftSeconds > 5400, "the identity", p.Identity)
	want(c[0].EarlierIdentity && !c[1].EarlierIdentity && !c[2].EarlierIdentity, "who shows an earlier one", c)
	want(p.Settings.IdleTimeoutSeconds == 300, "the settings", p.Settings)
	e := p.Events
	want(len(e) == 12 && e[0].Kind == "closed_retired" && e[11].Kind == "dialled" && e[0].AgoSeconds < e[1].AgoSeconds, "the events, the latest first", e)
}
