//go:build unix

package observe_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// screenshots is the environment variable that says where screenshots are written;
// without it they go where the test's other artifacts go.
const screenshots = "GRPCPOOL_SCREENSHOTS"

// browser is a tab of a real browser.
type browser struct {
	t   *testing.T
	tab context.Context // that is how chromedp hands one out

	mu       sync.Mutex // guards troubles
	troubles []string   // what the browser has complained of
}

// startBrowser opens a tab of a browser that ends with the test. rebound.example is
// a name that points to this machine.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv(realserver.RequireAll) != "" {
			t.Fatalf("there is no chromium: %v", err)
		}
		t.Skipf("there is no chromium (Debian's package of that name): %v", err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, // root, as CI is, has no sandbox
		chromedp.Flag("host-resolver-rules", "MAP rebound.example 127.0.0.1"))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	allocator, release := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(release) // waits for the browser's end
	b := &browser{t: t}
	tab, closeTab := chromedp.NewContext(allocator, chromedp.WithListener(b.listen))
	t.Cleanup(closeTab)
	b.tab = tab
	b.do()
	return b
}

// listen notes what the browser complains of: exceptions, what the page's policy
// forbids, dialogs.
func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.troubles = append(b.troubles, "exception: "+e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		if !strings.Contains(e.Entry.URL, "favicon") {
			b.troubles = append(b.troubles, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		}
	case *page.EventJavascriptDialogOpening:
		b.troubles = append(b.troubles, "dialog: "+e.Message)
	}
}

func (b *browser) wantNoTrouble() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, trouble := range b.troubles {
		b.t.Errorf("the browser complains: %s", trouble)
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.tab, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// read returns what an action does.
func read[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := chromedp.Run(b.tab, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// say evaluates a piece of JavaScript.
func say[T any](b *browser, script string) T {
	b.t.Helper()
	return read(b, chromedp.Evaluate[T](script))
}

// await waits until a piece of JavaScript is true.
func (b *browser) await(script string) {
	b.t.Helper()
	read(b, chromedp.Poll[bool](script, chromedp.WithPollingTimeout(soon)))
}

// awaitText waits until the page says that.
func (b *browser) awaitText(text string) {
	b.t.Helper()
	b.await(`document.body.innerText.replace(/\s+/g, " ").includes("` + text + `")`)
}

// send sends the browser a command.
func send[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.tab, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// look sets the window's width and the colours that the user prefers.
func (b *browser) look(width int64, scheme string) {
	b.t.Helper()
	phone := width < 600
	scale := 1.0
	if phone {
		scale = 2
	}
	send(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: 900, DeviceScaleFactor: scale, Mobile: phone,
	})
	send(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// screenshot writes the whole page as it looks now.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv(screenshots)
	if dir == "" {
		dir = b.t.ArtifactDir()
	} else if err := os.MkdirAll(dir, 0o750); err != nil {
		b.t.Fatal(err)
	}
	png := read(b, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if len(png) < 10_000 {
		b.t.Errorf("the screenshot %s has %d bytes: an empty page?", name, len(png))
	}
}

// servePage serves the live page of pools until the test ends.
func servePage(t *testing.T, pools ...poolz.Pool) (url string) {
	t.Helper()
	server := httptest.NewServer(poolz.Handler(pools))
	t.Cleanup(server.Close)
	return server.URL
}

func TestTheLivePageInARealBrowser(t *testing.T) {
	b := startBrowser(t)
	s := newStageWith(t, 16)
	s.loseTheServer()
	s.enter(36, 36)
	lease, err := s.pool.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "probes of every connection", func() bool { return s.probes() >= 3 }) // the calls are quiet
	b.look(1120, "light")
	b.do(chromedp.Navigate(servePage(t, s.pool)), chromedp.WaitVisible(chromedp.CSS(".live.on")))

	// It says what is there.
	b.awaitText(fmt.Sprintf("Connections %d of 4 Streams 36 of %d", s.connections(), 16*s.connections())) // but for a probe now and then
	wantPage(b, "orders", "ready", "Leases out 37", "of 16", "TLS 1.3", "observe_test.TestTheLivePage", "Last closed: lost", "grew")
	if lines := say[int](b, `document.querySelectorAll("svg.spark polyline").length`); lines != s.connections() {
		t.Errorf("%d sparklines are drawn, want one for each connection", lines)
	}
	if bars := say[int](b, `document.querySelectorAll("svg.bar").length`); bars != s.connections() {
		t.Errorf("%d bars are drawn, want one for each connection", bars)
	}
	light := say[string](b, `getComputedStyle(document.body).backgroundColor`)
	b.screenshot("light")

	// It follows what the user prefers, and fits on a phone.
	b.look(1120, "dark")
	if dark := say[string](b, `getComputedStyle(document.body).backgroundColor`); dark == light {
		t.Errorf("the page is as light in the dark: %s", dark)
	}
	b.screenshot("dark")
	b.look(390, "light")
	if over := say[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
		t.Errorf("on a phone the page is %d pixels too wide", over)
	}
	b.screenshot("phone")
	b.look(390, "dark")
	b.screenshot("phone-dark")

	// It updates itself, and keeps what the reader has opened.
	b.do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("details").forEach((d) => { d.open = true })`))
	opened := say[int](b, `document.querySelectorAll("details[open]").length`)
	lease.Return()
	b.awaitText("Leases out 36")
	if now := say[int](b, `document.querySelectorAll("details[open]").length`); now != opened {
		t.Errorf("%d sections are open after an update, want %d", now, opened)
	}

	// It can be paused.
	b.do(chromedp.Click(chromedp.ID("pause")))
	b.await(`document.getElementById("said").textContent.startsWith("paused")`)
	s.leave()
	eventually(t, "no leases", func() bool { return s.pool.Stats().Leases == 0 })
	b.do(chromedp.Sleep(1500 * time.Millisecond)) // longer than between two updates
	wantPage(b, "Leases out 36")
	b.do(chromedp.Click(chromedp.ID("pause")))
	b.awaitText("Leases out 0")
	wantPage(b, "36 calls on the pool ended · 36 OK")
	b.wantNoTrouble()
}

// wantPage fails unless all that can be read on the page.
func wantPage(b *browser, want ...string) {
	b.t.Helper()
	text := say[string](b, `document.body.innerText.replace(/\s+/g, " ")`)
	for _, w := range want {
		if !strings.Contains(text, w) {
			b.t.Errorf("the page does not say %q:\n%s", w, text)
		}
	}
}

func TestThePageSaysWhenNobodyAnswers(t *testing.T) {
	b := startBrowser(t)
	server := httptest.NewServer(poolz.Handler(nil))
	b.do(chromedp.Navigate(server.URL), chromedp.WaitVisible(chromedp.CSS(".live.on")))
	server.CloseClientConnections()
	server.Close()
	b.do(chromedp.WaitVisible(chromedp.CSS(".live.lost")))
	wantPage(b, "no answer since")
}

func TestThePageUpdatesItselfWithoutScripts(t *testing.T) {
	b := startBrowser(t)
	s := newStage(t)
	send(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.do(chromedp.Navigate(servePage(t, s.pool)))
	first := read(b, chromedp.TextContent(chromedp.ID("said")))
	if !strings.HasPrefix(first, "as of ") {
		t.Errorf("the page says %q", first)
	}
	eventually(t, "another time on the page", func() bool { // it asks again after five seconds
		now, err := chromedp.Run(b.tab, chromedp.TextContent(chromedp.ID("said")))
		return err == nil && now != first // an error: the page has just been replaced
	})
	if !read(b, chromedp.AttributeValue(chromedp.ID("pause"), "hidden")).Exists {
		t.Error("there is a button that does nothing")
	}
}

// hostilePool is a pool whose peer sends what it likes.
type hostilePool struct{}

func (hostilePool) Holders() []shared.Holder {
	return []shared.Holder{{Func: attack("holder"), File: attack("file"), Leases: 1}}
}

func (hostilePool) Stats() shared.Stats {
	now := time.Now()
	return shared.Stats{
		Name: attack("name"), Target: attack("target"), State: shared.StateFailing, LastError: fmt.Errorf("%s", attack("error")),
		Current: scale.Channel{Subchannels: []scale.Subchannel{{
			Address: attack("address"), LastError: attack("last error"), MaxConnections: 1,
			Connections: []scale.Connection{{Remote: attack("remote"), Local: attack("local"), Since: now, Limit: 1, TLS: &scale.TLS{
				Version: attack("version"), CipherSuite: attack("suite"), ServerName: attack("server name"),
			}}},
		}}},
		Events: []shared.Event{{Time: now, Kind: shared.EventLost, Address: attack("address"), Connection: 1, Text: attack("GOAWAY"), Count: 1}},
	}
}

// attack is markup that tells if it is ever more than text.
func attack(from string) string {
	return `'"></style></script><script>alert("` + from + `")</script><img src=x onerror="alert('` + from + `')"><b onmouseover=alert(1)>` + from
}

func TestMarkupOfAPeerDoesNothingInARealBrowser(t *testing.T) {
	b := startBrowser(t)
	b.do(chromedp.Navigate(servePage(t, hostilePool{})), chromedp.WaitVisible(chromedp.CSS(".live.on"))) // it has been through the script too
	if n := say[int](b, `document.querySelectorAll("img, b[onmouseover], main script").length`); n != 0 {
		t.Errorf("%d elements of the peer's are on the page", n)
	}
	wantPage(b, attack("name"), attack("error"), attack("GOAWAY"), attack("server name"), attack("remote"),
		`script><img src=x onerror="alert('holder')">`) // from the last slash on, as with the path of a package
	b.wantNoTrouble()
}

func TestABrowserThatWasPointedHereByAnotherNameIsRefused(t *testing.T) {
	b := startBrowser(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(servePage(t, hostilePool{}), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := chromedp.RunResponse(b.tab, chromedp.Navigate("http://rebound.example:"+port))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Status != http.StatusForbidden {
		t.Errorf("the browser got %d, want 403", answer.Status)
	}
	wantPage(b, "use localhost or 127.0.0.1")
}
