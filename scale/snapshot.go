package scale

import (
	"cmp"
	"crypto/tls"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/connectivity"
)

// Unlimited is the Limit of a connection whose server sets none.
const Unlimited = 1<<32 - 1

// Observer shows what a channel looks like inside. Hand it to [NewClient] with
// [WithObserver]; its zero value is ready for that. It holds nothing of a channel that
// was closed but the channel's settings. Its methods may be called concurrently.
type Observer struct {
	channel atomic.Pointer[channel]
}

var errObserverTaken = errors.New("scale: WithObserver: this Observer shows another channel already; want one for each")

func (o *Observer) attach(ch *channel) error {
	if o != nil && !o.channel.CompareAndSwap(nil, ch) {
		return errObserverTaken
	}
	return nil
}

func (o *Observer) detach(ch *channel) {
	if o != nil {
		o.channel.CompareAndSwap(ch, nil)
	}
}

// Channel is what a channel looked like at one time. It is a copy and nobody
// else's.
type Channel struct {
	Subchannels []Subchannel `json:"subchannels"` // by address; none while the channel is idle or closed
	Events      []Event      `json:"events"`      // the latest, oldest first
}

// Subchannel is one address of a channel. The counters count from when the LB
// policy made the subchannel.
type Subchannel struct {
	Address        string             `json:"address"`
	State          connectivity.State `json:"state"`          // as its LB policy knows it
	MaxConnections int                `json:"maxConnections"` // how many there may be
	Dialling       int                `json:"dialling"`       // dials under way, but for one that has long been overdue
	Waiters        int                `json:"waiters"`        // calls that wait for a stream
	LastError      string             `json:"lastError"`      // of the last dial that failed or connection that was lost; "" if none
	Opened         uint64             `json:"opened"`         // connections that became READY
	Failed         uint64             `json:"failed"`         // dials that failed
	Lost           uint64             `json:"lost"`           // connections that the server or the network ended
	Shrunk         uint64             `json:"shrunk"`         // connections closed because they were not needed
	Ejected        uint64             `json:"ejected"`        // connections that failed their probe
	Replaced       uint64             `json:"replaced"`       // connections that made way for their successors
	Probes         uint64             `json:"probes"`         // that have ended
	ProbesFailed   uint64             `json:"probesFailed"`   // of these
	Waited         uint64             `json:"waited"`         // calls that had to wait for a stream
	Starved        uint64             `json:"starved"`        // of these, calls that ended without one
	Connections    []Connection       `json:"connections"`    // that take streams, oldest first
}

// Connection is one connection of a subchannel, READY for RPCs.
type Connection struct {
	ID        uint64    `json:"id"`        // within the channel
	Local     string    `json:"local"`     // this side's address
	Remote    string    `json:"remote"`    // the peer's
	Since     time.Time `json:"since"`     // when it became READY; its age is the time since
	InFlight  int       `json:"inFlight"`  // streams, those of health watches and producers included
	Limit     uint32    `json:"limit"`     // what the server allows, or [Unlimited]
	LastHeard time.Time `json:"lastHeard"` // when bytes last came; zero if that is not known

	// The round trips of the latest probes, oldest first.
	ProbeTimes []time.Duration `json:"probeTimes"`

	TLS *TLS `json:"tls"` // nil without TLS
}

// TLS is what the handshake of a connection came to.
type TLS struct {
	Version     string    `json:"version"`     // such as "TLS 1.3"
	CipherSuite string    `json:"cipherSuite"` // its IANA name
	ServerName  string    `json:"serverName"`  // the common name of the server's certificate; the peer's text
	Expires     time.Time `json:"expires"`     // when the server's certificate does
}

// Snapshot copies the state of the channel. It is empty before [NewClient] and
// while the channel is idle or closed. It takes the lock of each subchannel for
// the time of the copy.
func (o *Observer) Snapshot() Channel {
	ch := o.channel.Load()
	if ch == nil {
		return Channel{}
	}
	var snapshot Channel
	for _, p := range ch.livePolicies() {
		for _, s := range p.subchannels() {
			snapshot.Subchannels = append(snapshot.Subchannels, s.snapshot())
		}
	}
	snapshot.Events = ch.events.Latest()
	slices.SortFunc(snapshot.Subchannels, func(a, b Subchannel) int { return cmp.Compare(a.Address, b.Address) })
	return snapshot
}

// RetryNow ends the backoff of every subchannel that is waiting to dial again. Call
// it when you know that the network is back. grpc.ClientConn has
// ResetConnectBackoff for that, which in grpc-go 1.85 reads a map without its lock
// and so must not be called while connections come and go.
func (o *Observer) RetryNow() {
	ch := o.channel.Load()
	if ch == nil {
		return
	}
	for _, p := range ch.livePolicies() {
		for _, s := range p.subchannels() {
			s.retryNow()
		}
	}
}

func (ch *channel) livePolicies() []*policy {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	policies := make([]*policy, 0, len(ch.policies))
	for p := range ch.policies {
		policies = append(policies, p)
	}
	return policies
}

func (s *subchannel) snapshot() Subchannel {
	s.mu.Lock()
	defer s.mu.Unlock()
	snapshot := Subchannel{
		Address:        s.addr(),
		State:          s.state,
		MaxConnections: s.policy.settings.Load().maxConnections,
		Dialling:       s.countLocked()[phaseDialling] - boolToInt(s.lingeringLocked() != nil),
		Waiters:        s.queue.length,
		Opened:         s.stats.opened,
		Failed:         s.stats.failed,
		Lost:           s.stats.lost,
		Shrunk:         s.stats.shrunk,
		Ejected:        s.stats.ejected,
		Replaced:       s.stats.replaced,
		Probes:         s.stats.probes,
		ProbesFailed:   s.stats.probesFailed,
		Waited:         s.stats.waited,
		Starved:        s.stats.starved,
	}
	if s.lastErr != nil {
		snapshot.LastError = s.lastErr.Error()
	}
	for _, c := range *s.ready.Load() {
		snapshot.Connections = append(snapshot.Connections, c.snapshotLocked())
	}
	return snapshot
}

func (c *connection) snapshotLocked() Connection {
	snapshot := Connection{
		ID:         c.id,
		Since:      c.readyAt,
		InFlight:   int(c.inFlight()),
		Limit:      c.tap.Limit(),
		LastHeard:  c.tap.LastHeard(),
		ProbeTimes: slices.Clone(c.probes),
	}
	if addr := c.tap.LocalAddr(); addr != nil {
		snapshot.Local = addr.String()
	}
	if addr := c.tap.RemoteAddr(); addr != nil {
		snapshot.Remote = addr.String()
	}
	if state, ok := c.tap.TLS(); ok {
		snapshot.TLS = newTLS(&state)
	}
	return snapshot
}

func newTLS(state *tls.ConnectionState) *TLS {
	t := &TLS{Version: tls.VersionName(state.Version), CipherSuite: tls.CipherSuiteName(state.CipherSuite)}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		t.ServerName, t.Expires = leaf.Subject.CommonName, leaf.NotAfter
	}
	return t
}
