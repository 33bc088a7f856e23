package poolz_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePool is a pool with a given look.
type fakePool struct {
	stats   shared.Stats
	holders []shared.Holder
}

func (p fakePool) Stats() shared.Stats      { return p.stats }
func (p fakePool) Holders() []shared.Holder { return p.holders }

// busy is a pool in which everything is to be seen. text stands wherever a peer's
// text may.
func busy(text string) fakePool {
	now := time.Now()
	connections := []scale.Connection{
		{
			ID: 3, Local: "10.0.0.7:40112", Remote: "10.0.3.21:8443", Since: now.Add(-47 * time.Minute), InFlight: 100, Limit: 100,
			LastHeard: now.Add(-12 * time.Millisecond), ProbeTimes: []time.Duration{9e5, 11e5, 8e5, 21e5, 13e5, 9e5, 10e5},
			TLS: &scale.TLS{Version: "TLS 1.3", CipherSuite: "TLS_AES_128_GCM_SHA256", ServerName: text, Expires: now.Add(23*time.Hour + 30*time.Minute)},
		},
		{ID: 4, Remote: "10.0.3.21:8443", Since: now.Add(-3 * time.Second), InFlight: 37, Limit: scale.Unlimited},
		{
			ID: 5, Remote: "10.0.3.21:8443", Since: now.Add(-3 * time.Second), InFlight: 37, Limit: 100, LastHeard: now,
			TLS: &scale.TLS{Version: "TLS 1.2", Expires: now.Add(-time.Hour)},
		},
	}
	sub := scale.Subchannel{
		Address: text, State: connectivity.Ready, MaxConnections: 10, Dialling: 1, Waiters: 42, LastError: text,
		Opened: 6, Failed: 1, Lost: 1, Shrunk: 1, Ejected: 1, Replaced: 1, Probes: 512, ProbesFailed: 2, Waited: 4711, Starved: 3,
		Connections: connections,
	}
	calls := map[codes.Code]uint64{codes.Unavailable: 188, codes.OK: 1_234_567, codes.NotFound: 1, codes.ResourceExhausted: 5}
	kinds := []shared.EventKind{
		shared.EventDialled, shared.EventOpened, shared.EventTested, shared.EventGrew, shared.EventLost, shared.EventStarved,
		shared.EventWaitedTooLong, shared.EventFailing, shared.EventRecovered, shared.EventLeaked, shared.EventRetired, shared.EventClosedRetired,
	}
	events := make([]shared.Event, 0, len(kinds))
	for i, k := range kinds {
		events = append(events, shared.Event{
			Time: now.Add(time.Duration(i-len(kinds)) * time.Second), Kind: k, Address: text, Connection: uint64(i % 2), Count: 1 + i%3, Text: text,
		})
	}
	return fakePool{
		stats: shared.Stats{
			Name: text, Target: text, State: shared.StateReady, Leases: 12345, Waiting: 7, Channels: 2, LastError: errors.New(text),
			Current: scale.Channel{Subchannels: []scale.Subchannel{sub}}, Retired: []scale.Channel{{Subchannels: []scale.Subchannel{sub}}},
			Events: events, Calls: calls, Dials: 9, DialsFailed: 2, Tests: 1234, TestsFailed: 3, Replaced: 1, IdleClosed: 4, Leaked: 2,
			Identity: identity.Info{
				Generation: 3, Subject: text, Serial: text, NotAfter: now.Add(90*time.Minute + time.Second), Expiry: identity.ExpiryUrgent,
				LoadedAt: now.Add(-10 * time.Minute), LastError: errors.New(text), Unreadable: text,
			},
			Settings: shared.Settings{IdleTimeout: 5 * time.Minute, DialTimeout: 20 * time.Second, LeakAfter: time.Minute},
		},
		holders: []shared.Holder{
			{Func: "example.com/shop/orders.(*Service).Place", File: "/src/orders/place.go", Line: 118, Leases: 12000, Oldest: 4 * time.Minute, Leaked: 2},
			{Func: text, File: text, Line: 7, Leases: 345, Oldest: 80 * time.Millisecond},
		},
	}
}

// ask asks h for the page as a browser on this machine does.
func ask(h http.Handler, query string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://localhost:8080/debug/poolz"+query, nil)
	r.RemoteAddr = "127.0.0.1:50123"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func handler(pools ...poolz.Pool) http.Handler { return poolz.Handler(pools) }
