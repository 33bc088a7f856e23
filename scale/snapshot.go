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

// Unlimited is the Limit of a [Connection] whose server sets no limit.
const Unlimited = 1<<32 - 1

// Observer shows the state inside a channel: its connections, their streams and probes,
// and what went wrong. Make one with new(Observer) and give it to [NewClient] with
// [WithObserver]. Once the channel is closed it keeps nothing of it but the settings. Its
// methods may be called concurrently.
type Observer struct {
	channel atomic.Pointer[channel]
}

var errObserverTaken = errors.New("scale: WithObserver: this Observer already shows another channel; make one for each channel")

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

// Channel is the state of a channel at one moment. It is a copy that belongs to the
// caller.
type Channel struct {
	Subchannels []Subchannel `json:"subchannels"` // sorted by address; none while the channel is idle or closed
	Events      []Event      `json:"events"`      // the latest 64, oldest first
}

// Subchannel is one address of a channel. Its counters begin at zero when the LB policy
// makes the subchannel, and end with it.
type Subchannel struct {
	Address        string             `json:"address"`
	State          connectivity.State `json:"state"`          // as the LB policy sees it
	MaxConnections int                `json:"maxConnections"` // the most that may be open
	Dialling       int                `json:"dialling"`       // dials in progress, except one that is long overdue
	Late           int                `json:"late"`           // of these, dials whose server has not finished the handshake in time; they go on, and calls do not wait for them
	Waiters        int                `json:"waiters"`        // calls waiting for a stream
	LastError      string             `json:"lastError"`      // why the last dial failed or the last connection was lost; "" if neither happened
	Opened         uint64             `json:"opened"`         // connections that became READY
	Failed         uint64             `json:"failed"`         // dials that failed
	Lost           uint64             `json:"lost"`           // connections ended by the server or the network
	Shrunk         uint64             `json:"shrunk"`         // connections closed because they were unused
	Ejected        uint64             `json:"ejected"`        // connections closed because they did not answer
	Replaced       uint64             `json:"replaced"`       // connections replaced by a successor
	Probes         uint64             `json:"probes"`         // probes that have ended
	ProbesFailed   uint64             `json:"probesFailed"`   // of these, the ones that failed
	Waited         uint64             `json:"waited"`         // calls that had to wait for a stream
	Starved        uint64             `json:"starved"`        // of these, calls that ended before they got one
	Connections    []Connection       `json:"connections"`    // those that take new calls, oldest first
}

// Connection is one connection of a subchannel, READY for RPCs.
type Connection struct {
	ID        uint64    `json:"id"`        // unique within the channel
	Local     string    `json:"local"`     // the local address
	Remote    string    `json:"remote"`    // the server's address, or its proxy's
	Since     time.Time `json:"since"`     // when it became READY; its age is the time since
	InFlight  int       `json:"inFlight"`  // open streams, including those of probes and health checks
	Limit     uint32    `json:"limit"`     // the most streams that the server allows, or [Unlimited]
	LastHeard time.Time `json:"lastHeard"` // when bytes were last received; zero if not known

	// ProbeTimes are the round-trip times of the latest probes, oldest first.
	ProbeTimes []time.Duration `json:"probeTimes"`

	TLS *TLS `json:"tls"` // nil without TLS
}

// TLS describes the TLS session of a connection.
type TLS struct {
	Version     string    `json:"version"`     // such as "TLS 1.3"
	CipherSuite string    `json:"cipherSuite"` // its IANA name
	ServerName  string    `json:"serverName"`  // the common name in the server's certificate; text from the peer, to be escaped
	Expires     time.Time `json:"expires"`     // when the server's certificate expires
}

// Snapshot returns the state of the channel. Before [NewClient] it is empty; while the
// channel is idle or closed it has no subchannels. It takes the lock of each subchannel
// while it copies.
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

// LastProof returns the latest time at which a connection that takes calls is known to have
// been alive: something that was sent on it after that time was answered. It is the zero
// Time if no connection is READY.
func (o *Observer) LastProof() time.Time {
	ch := o.channel.Load()
	if ch == nil {
		return time.Time{}
	}
	var last time.Time
	for _, p := range ch.livePolicies() {
		for _, s := range p.subchannels() {
			for _, c := range *s.ready.Load() {
				last = latest(last, c.made.Add(time.Duration(c.aliveAt.Load())))
			}
		}
	}
	return last
}

// Supervised reports whether the channel watches its own connections: whether it probes
// them all. It does not with [WithUnsupervised] or without probes ([WithProbeInterval]), nor
// where it cannot see the bytes of a connection. It is false before [NewClient], and while
// the channel is idle or closed.
func (o *Observer) Supervised() bool {
	ch := o.channel.Load()
	if ch == nil {
		return false
	}
	policies := ch.livePolicies()
	for _, p := range policies {
		if set := p.settings.Load(); set == nil || set.probeInterval <= 0 {
			return false
		}
		for _, s := range p.subchannels() {
			for _, c := range *s.ready.Load() {
				if !c.tap.Attached() {
					return false
				}
			}
		}
	}
	return len(policies) > 0
}

// RetryNow makes every subchannel that waits before its next dial begin the dial now.
// Call it when you know that the network or the server is back. Use it instead of the
// ResetConnectBackoff of grpc.ClientConn, which has a data race in grpc-go 1.85.
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
		Dialling:       s.countLocked()[phaseDialling] - boolToInt(s.longDialLocked() != nil),
		Late:           s.countLateLocked(),
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
