package poolz

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/internal/reason"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// view is the data of the page, for HTML and JSON.
type view struct {
	Time  time.Time  `json:"time"`
	Pools []poolView `json:"pools"`
}

type poolView struct {
	Name      string       `json:"name"`
	Target    string       `json:"target"`
	State     shared.State `json:"state"`
	LastError string       `json:"lastError,omitempty"`

	Leases         int    `json:"leases"`
	Waiting        int    `json:"waiting"`      // callers waiting for a connection
	CallsWaiting   int    `json:"callsWaiting"` // calls waiting for a stream
	Connections    int    `json:"connections"`
	MaxConnections int    `json:"maxConnections"`
	Streams        int    `json:"streams"`
	StreamLimit    uint64 `json:"streamLimit"` // sum over the connections that have a limit

	Calls       callsView `json:"calls"` // by status code
	Dials       uint64    `json:"dials"`
	DialsFailed uint64    `json:"dialsFailed"`
	Tests       uint64    `json:"tests"`
	TestsFailed uint64    `json:"testsFailed"`
	Replaced    uint64    `json:"replaced"`
	IdleClosed  uint64    `json:"idleClosed"`
	Leaked      uint64    `json:"leaked"`

	Subchannels []subchannelView `json:"subchannels"`
	LastClosed  *eventView       `json:"lastClosed,omitempty"` // the latest end of a connection, and why
	Holders     []holderView     `json:"holders"`              // empty without leak detection
	Events      []eventView      `json:"events"`               // latest first
	Identity    *identityView    `json:"identity"`             // null if the factory has no identity
	Settings    settingsView     `json:"settings"`
}

// callsView are the calls made on the pool that have ended, OK first. Codes without a call are
// left out.
type callsView []outcomeView

type outcomeView struct {
	Code  codes.Code
	Count uint64
}

// MarshalJSON writes an object with the names of the codes, as they are in gRPC's errors.
func (v callsView) MarshalJSON() ([]byte, error) {
	byName := make(map[string]uint64, len(v))
	for _, o := range v {
		byName[o.Code.String()] = o.Count
	}
	return json.Marshal(byName)
}

// Total returns the number of all calls.
func (v callsView) Total() uint64 {
	var n uint64
	for _, o := range v {
		n += o.Count
	}
	return n
}

func newCallsView(calls map[codes.Code]uint64) callsView {
	v := make(callsView, 0, len(calls))
	for _, code := range slices.Sorted(maps.Keys(calls)) {
		v = append(v, outcomeView{code, calls[code]})
	}
	return v
}

// identityView is the client certificate that new connections use.
type identityView struct {
	Generation uint64          `json:"generation"`
	Subject    string          `json:"subject"`
	Serial     string          `json:"serial"`
	NotAfter   time.Time       `json:"notAfter"`
	Left       seconds         `json:"leftSeconds"`
	Expiry     identity.Expiry `json:"expiry"`
	LoadedAt   time.Time       `json:"loadedAt"`
	Loaded     seconds         `json:"loadedSeconds"`
	LastError  string          `json:"lastError,omitempty"` // why the latest reload failed
	Unreadable string          `json:"unreadable,omitempty"`
}

type subchannelView struct {
	Address        string           `json:"address"`
	State          string           `json:"state"`
	Retired        bool             `json:"retired"` // its channel is closed when the last lease is returned
	MaxConnections int              `json:"maxConnections"`
	Dialling       int              `json:"dialling"`
	Waiters        int              `json:"waiters"`
	LastError      string           `json:"lastError,omitempty"`
	LastClosed     *eventView       `json:"lastClosed,omitempty"`
	Opened         uint64           `json:"opened"`
	Failed         uint64           `json:"failed"`
	Lost           uint64           `json:"lost"`
	Shrunk         uint64           `json:"shrunk"`
	Ejected        uint64           `json:"ejected"`
	Replaced       uint64           `json:"replaced"`
	Waited         uint64           `json:"waited"`
	Starved        uint64           `json:"starved"`
	Probes         uint64           `json:"probes"`
	ProbesFailed   uint64           `json:"probesFailed"`
	Connections    []connectionView `json:"connections"`
}

type connectionView struct {
	ID       uint64    `json:"id"`
	Local    string    `json:"local"`
	Remote   string    `json:"remote"`
	Since    time.Time `json:"since"`
	Age      seconds   `json:"ageSeconds"`
	InFlight int       `json:"inFlight"`
	Limit    *uint32   `json:"limit"` // null if the server sets none
	Heard    *seconds  `json:"heardSeconds"`
	Probes   []seconds `json:"probeSeconds"`
	TLS      *tlsView  `json:"tls"`
	Earlier  bool      `json:"earlierIdentity"` // it was made before the client certificate was renewed
}

type tlsView struct {
	Version     string    `json:"version"`
	CipherSuite string    `json:"cipherSuite"`
	ServerName  string    `json:"serverName"`
	Expires     time.Time `json:"expires"`
	Left        seconds   `json:"leftSeconds"`
}

type holderView struct {
	Func   string  `json:"func"`
	File   string  `json:"file"`
	Line   int     `json:"line"`
	Leases int     `json:"leases"`
	Leaked int     `json:"leaked"`
	Oldest seconds `json:"oldestSeconds"`

	Place string `json:"-"`
}

type eventView struct {
	Time        time.Time        `json:"time"`
	Ago         seconds          `json:"agoSeconds"`
	Kind        shared.EventKind `json:"kind"`
	Channel     uint64           `json:"channel,omitempty"`
	Address     string           `json:"address,omitempty"`
	Connection  uint64           `json:"connection,omitempty"`
	Took        seconds          `json:"tookSeconds"`
	Connections int              `json:"connections,omitempty"` // the connections that were closed with the channel
	Count       int              `json:"count"`
	Text        string           `json:"text,omitempty"`
}

type settingsView struct {
	IdleTimeout  seconds `json:"idleTimeoutSeconds"` // 0: never
	DialTimeout  seconds `json:"dialTimeoutSeconds"`
	TestTimeout  seconds `json:"testTimeoutSeconds"`
	TestInterval seconds `json:"testIntervalSeconds"`
	DrainTimeout seconds `json:"drainTimeoutSeconds"`
	LeakAfter    seconds `json:"leakAfterSeconds"` // 0: leak detection is off
	WaitForReady bool    `json:"waitForReady"`
	Lazy         bool    `json:"lazy"` // Get lends channels that are not connected
}

func newView(pools []Pool, now time.Time) *view {
	v := &view{Time: now, Pools: make([]poolView, 0, len(pools))}
	for _, p := range pools {
		v.Pools = append(v.Pools, newPoolView(p, now))
	}
	return v
}

func newPoolView(p Pool, now time.Time) poolView {
	s := p.Stats()
	v := poolView{
		Name: s.Name, Target: s.Target, State: s.State,
		Leases: s.Leases, Waiting: s.Waiting,
		Calls: newCallsView(s.Calls),
		Dials: s.Dials, DialsFailed: s.DialsFailed, Tests: s.Tests, TestsFailed: s.TestsFailed,
		Replaced: s.Replaced, IdleClosed: s.IdleClosed, Leaked: s.Leaked,
		Settings:    newSettingsView(s.Settings),
		Subchannels: []subchannelView{},
		Holders:     newHolders(p.Holders()),
		Events:      newEvents(s.Events, now),
	}
	if s.LastError != nil {
		v.LastError = reason.Escape(s.LastError.Error())
	}
	v.Identity = newIdentityView(&s.Identity, now)
	v.add(s.Current, false, now)
	for _, retired := range s.Retired {
		v.add(retired, true, now)
	}
	v.LastClosed = lastClosed(v.Events, "")
	return v
}

// add adds the subchannels of a channel.
func (v *poolView) add(channel scale.Channel, retired bool, now time.Time) {
	for i := range channel.Subchannels {
		s := &channel.Subchannels[i]
		sub := newSubchannelView(s, v.Identity, now)
		sub.Retired = retired
		sub.LastClosed = lastClosed(v.Events, sub.Address)
		v.Subchannels = append(v.Subchannels, sub)
		v.CallsWaiting += s.Waiters
		v.MaxConnections += s.MaxConnections
		v.Connections += len(s.Connections)
		for _, c := range sub.Connections {
			v.Streams += c.InFlight
			if c.Limit != nil {
				v.StreamLimit += uint64(*c.Limit)
			}
		}
	}
}

func newIdentityView(id *identity.Info, now time.Time) *identityView {
	if id.Generation == 0 {
		return nil
	}
	v := &identityView{
		Generation: id.Generation, Subject: reason.Escape(id.Subject), Serial: id.Serial,
		NotAfter: id.NotAfter, Left: seconds(id.NotAfter.Sub(now)), Expiry: id.Expiry,
		LoadedAt: id.LoadedAt, Loaded: seconds(max(0, now.Sub(id.LoadedAt))),
		Unreadable: reason.Escape(id.Unreadable),
	}
	if id.LastError != nil {
		v.LastError = reason.Escape(id.LastError.Error())
	}
	return v
}

func newSubchannelView(s *scale.Subchannel, id *identityView, now time.Time) subchannelView {
	v := subchannelView{
		Address: reason.Escape(s.Address), State: s.State.String(), MaxConnections: s.MaxConnections,
		Dialling: s.Dialling, Waiters: s.Waiters, LastError: reason.Escape(s.LastError),
		Opened: s.Opened, Failed: s.Failed, Lost: s.Lost, Shrunk: s.Shrunk, Ejected: s.Ejected, Replaced: s.Replaced,
		Waited: s.Waited, Starved: s.Starved, Probes: s.Probes, ProbesFailed: s.ProbesFailed,
		Connections: make([]connectionView, 0, len(s.Connections)),
	}
	for i := range s.Connections {
		c := newConnectionView(&s.Connections[i], now)
		c.Earlier = id != nil && c.TLS != nil && c.Since.Before(id.LoadedAt)
		v.Connections = append(v.Connections, c)
	}
	return v
}

func newConnectionView(c *scale.Connection, now time.Time) connectionView {
	v := connectionView{
		ID: c.ID, Local: c.Local, Remote: c.Remote,
		Since: c.Since, Age: seconds(now.Sub(c.Since)), InFlight: c.InFlight,
	}
	if c.Limit != scale.Unlimited {
		v.Limit = &c.Limit
	}
	if !c.LastHeard.IsZero() {
		heard := seconds(max(0, now.Sub(c.LastHeard)))
		v.Heard = &heard
	}
	for _, took := range c.ProbeTimes {
		v.Probes = append(v.Probes, seconds(took))
	}
	if c.TLS != nil {
		v.TLS = &tlsView{
			Version: c.TLS.Version, CipherSuite: c.TLS.CipherSuite, ServerName: c.TLS.ServerName,
			Expires: c.TLS.Expires, Left: seconds(c.TLS.Expires.Sub(now)),
		}
	}
	return v
}

// maxHolders limits how many holders the page lists.
const maxHolders = 100

func newHolders(holders []shared.Holder) []holderView {
	if len(holders) > maxHolders {
		holders = holders[:maxHolders]
	}
	all := make([]holderView, 0, len(holders))
	for _, h := range holders {
		all = append(all, holderView{
			Func: h.Func, File: h.File, Line: h.Line, Leases: h.Leases, Leaked: h.Leaked,
			Oldest: seconds(h.Oldest), Place: place(h),
		})
	}
	return all
}

// newEvents returns the events, latest first. It sorts them, because events of different
// channels may be slightly out of order.
func newEvents(events []shared.Event, now time.Time) []eventView {
	all := make([]eventView, 0, len(events))
	for _, e := range slices.Backward(events) {
		all = append(all, eventView{
			Time: e.Time, Ago: seconds(max(0, now.Sub(e.Time))), Kind: e.Kind, Channel: e.Channel, Address: reason.Escape(e.Address),
			Connection: e.Connection, Took: seconds(e.Took), Connections: e.Connections, Count: e.Count, Text: reason.Escape(e.Text),
		})
	}
	slices.SortStableFunc(all, func(a, b eventView) int { return cmp.Compare(a.Ago, b.Ago) })
	return all
}

// lastClosed returns the latest end of a connection to address, or to any address if
// address is "". It is nil if there is none.
func lastClosed(latestFirst []eventView, address string) *eventView {
	for i := range latestFirst {
		e := &latestFirst[i]
		switch e.Kind {
		case shared.EventLost, shared.EventEjected, shared.EventShrank, shared.EventReplaced:
			if address == "" || e.Address == address {
				return e
			}
		case shared.EventClosedIdle, shared.EventClosedRetired, shared.EventClosedShutdown:
			if address == "" {
				return e
			}
		default:
		}
	}
	return nil
}

func newSettingsView(s shared.Settings) settingsView {
	return settingsView{
		IdleTimeout:  seconds(s.IdleTimeout),
		DialTimeout:  seconds(s.DialTimeout),
		TestTimeout:  seconds(s.TestTimeout),
		TestInterval: seconds(s.TestInterval),
		DrainTimeout: seconds(s.DrainTimeout),
		LeakAfter:    seconds(s.LeakAfter),
		WaitForReady: s.WaitForReady,
		Lazy:         s.Lazy,
	}
}
