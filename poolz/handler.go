package poolz

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/davidwartell/go-grpcpool/shared"
)

// Pool is what the page shows. *shared.Pool is one.
type Pool interface {
	Stats() shared.Stats
	Holders() []shared.Holder
}

var _ Pool = (*shared.Pool)(nil)

// Option changes how the page is served.
type Option func(*page)

// WithAccess has allowed say which requests are answered, in place of the check
// that they come from this machine. It is called for every request and may be
// called concurrently. A nil func changes nothing.
func WithAccess(allowed func(*http.Request) bool) Option {
	return func(p *page) {
		if allowed != nil {
			p.refuse = func(r *http.Request) string {
				if allowed(r) {
					return ""
				}
				return "access to this page was refused"
			}
		}
	}
}

// Handler serves the page of the given pools, at any path. Pools that are nil are
// left out; pools that are closed are shown as that. It answers GET and HEAD:
//
//	?format=html      the page; the default
//	?format=json      the same data as JSON, durations in seconds
//	?format=fragment  the page's changing part, for its script
func Handler(pools []Pool, opts ...Option) http.Handler {
	p := &page{refuse: refuseRemote}
	for _, pool := range pools {
		if pool != nil {
			p.pools = append(p.pools, pool)
		}
	}
	for _, opt := range opts {
		if opt != nil {
			opt(p)
		}
	}
	return p
}

// freshness is how old a look at the pools may be that is shown.
const freshness = 100 * time.Millisecond

type page struct {
	pools  []Pool
	refuse func(*http.Request) (why string) // "" if it may be answered

	mu   sync.Mutex // guards last; held while looking, so that requests share one look
	last *view
}

// look is the data of the page.
func (p *page) look() *view {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil || time.Since(p.last.Time) >= freshness {
		p.last = newView(p.pools, time.Now())
	}
	return p.last
}

// ServeHTTP implements http.Handler.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nonce := rand.Text()
	secure(w.Header(), nonce)
	if why := p.refuse(r); why != "" {
		fail(w, http.StatusForbidden, why)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "this page only answers GET and HEAD")
		return
	}
	var body bytes.Buffer
	var err error
	kind := "text/html; charset=utf-8"
	switch format := r.URL.Query().Get("format"); format {
	case "", "html":
		err = pageTemplate.ExecuteTemplate(&body, "page", pageData{p.look(), nonce})
	case "fragment":
		err = pageTemplate.ExecuteTemplate(&body, "main", p.look())
	case "json":
		kind = "application/json"
		encoder := json.NewEncoder(&body)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(p.look())
	default:
		fail(w, http.StatusBadRequest, fmt.Sprintf("there is no format %q, want html or json", format))
		return
	}
	if err != nil {
		fail(w, http.StatusInternalServerError, "the page could not be made: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body.Bytes()) // fails only if the reader has gone
}

// pageData is a page with the nonce that lets its own style and script run.
type pageData struct {
	View  *view
	Nonce string
}

// fail answers with a reason in plain text.
func fail(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "poolz: %s\n", why) //nolint:gosec // plain text that is not sniffed; the error is as above
}
