package poolz

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/davidwartell/go-grpcpool/shared"
)

// Pool is a pool that the page can show; *[shared.Pool] is one. Its methods must be safe
// for concurrent use.
type Pool interface {
	Stats() shared.Stats
	Holders() []shared.Holder
}

var _ Pool = (*shared.Pool)(nil)

// Option is an option of [Handler].
type Option func(*page)

// WithAccess makes allowed decide which requests are answered, in place of the check that
// they come from this machine. It is called for every request, concurrently; a request for
// which it returns false gets status 403. allowed must not be nil.
func WithAccess(allowed func(*http.Request) bool) Option {
	return func(p *page) {
		if allowed == nil {
			p.mistake = errors.New("WithAccess(nil): want a function; leave the option out to answer this machine only")
			return
		}
		p.refuse = func(r *http.Request) string {
			if allowed(r) {
				return ""
			}
			return "access to this page is denied"
		}
	}
}

// Handler returns a handler that serves the page of the given pools at any path. A pool
// that is closed stays on the page, marked as closed. The handler answers GET and HEAD:
//
//	?format=html      the page; the default
//	?format=json      the same data as JSON, durations in seconds
//	?format=fragment  the part of the page that changes, for the page's script
//
// If a pool, an option or the argument of an option is nil, the handler answers every
// request that it would not refuse with status 500 and a text that names the mistake.
func Handler(pools []Pool, opts ...Option) http.Handler {
	p := &page{pools: pools, refuse: refuseRemote}
	for i, opt := range opts {
		if opt == nil {
			p.mistake = fmt.Errorf("Handler: option %d of %d is nil", i+1, len(opts))
			continue
		}
		opt(p)
	}
	for i, pool := range pools {
		if isNil(pool) {
			p.mistake = fmt.Errorf("Handler: pool %d of %d is nil", i+1, len(pools))
		}
	}
	return p
}

// isNil reports whether pool is nil or holds a nil pointer.
func isNil(pool Pool) bool {
	v := reflect.ValueOf(pool)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

// freshness is the greatest age of the data that a request may be answered with.
const freshness = 100 * time.Millisecond

type page struct {
	pools   []Pool
	refuse  func(*http.Request) (why string) // "" if the request may be answered
	mistake error                            // in the arguments of Handler; nil if there is none

	mu   sync.Mutex // guards last; held while the pools are read, so that requests share one reading
	last *view
}

// current returns the data of the page, read anew if it is too old.
func (p *page) current() *view {
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
	if p.mistake != nil {
		fail(w, http.StatusInternalServerError, p.mistake.Error())
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "this page answers GET and HEAD only")
		return
	}
	var body bytes.Buffer
	var err error
	kind := "text/html; charset=utf-8"
	switch format := r.URL.Query().Get("format"); format {
	case "", "html":
		err = pageTemplate.ExecuteTemplate(&body, "page", pageData{p.current(), nonce})
	case "fragment":
		err = pageTemplate.ExecuteTemplate(&body, "main", p.current())
	case "json":
		kind = "application/json"
		encoder := json.NewEncoder(&body)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(p.current())
	default:
		fail(w, http.StatusBadRequest, fmt.Sprintf("unknown format %q: use html or json", format))
		return
	}
	if err != nil {
		fail(w, http.StatusInternalServerError, "the page could not be rendered: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body.Bytes()) // fails only if the reader is gone
}

// pageData is the data of the whole page; the nonce lets its own style and script run.
type pageData struct {
	View  *view
	Nonce string
}

// fail answers with a status and the reason in plain text.
func fail(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "poolz: %s\n", why) //nolint:gosec // plain text that is not sniffed; the error is as above
}
