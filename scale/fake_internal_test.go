package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental/stats"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
)

// stage is a policy with a scripted channel around it: a test plays gRPC, one step
// at a time, in a synctest bubble.
type stage struct {
	balancer.ClientConn

	t        *testing.T
	policy   *policy
	speaking atomic.Bool  // gRPC's goroutine for the channel runs
	moved    map[move]int // of connections; guarded by subchannel.mu

	mu     sync.Mutex // guards all below
	events []string   // what reached gRPC, in order
	conns  []*scripted
	slow   chan struct{} // holds NewSubConn up, unless it is nil
	picker balancer.Picker
	state  connectivity.State
	told   []connectivity.State // to the child, in order
}

// scripted is a SubConn, and the connection that it would have.
type scripted struct {
	balancer.SubConn

	stage    *stage
	number   int
	listener func(balancer.SubConnState)
	opts     balancer.NewSubConnOptions
	health   func(balancer.SubConnState)
	slow     chan struct{} // holds the next RegisterHealthListener up, unless it is nil
	slowEnd  chan struct{} // holds Close of its socket up, unless it is nil
	wire     *http2.Framer // the server's side; nil before READY
	hangUp   func()
	deaf     atomic.Bool // it does not answer probes, and its HTTP/2 acknowledges nothing
}

// MetricsRecorder is what pick_first of grpc-go before 1.84 asks for.
func (*stage) MetricsRecorder() stats.MetricsRecorder { return stats.UnimplementedMetricsRecorder{} }

// newStage opens the play: a policy with the address "a" and child pick_first
// unless js says otherwise, told to connect.
func newStage(t *testing.T, js string) *stage {
	t.Helper()
	st := &stage{t: t, moved: make(map[move]int)}
	parsed, err := builder{}.ParseConfig(json.RawMessage(js))
	if err != nil {
		t.Fatal(err)
	}
	cfg := parsed.(*config)
	cfg.childBuilder = onStage{cfg.childBuilder, st}
	st.policy = builder{}.Build(st, balancer.BuildOptions{DialCreds: insecure.NewCredentials()}).(*policy)
	addrs := []resolver.Address{{Addr: "a"}}
	err = st.policy.UpdateClientConnState(balancer.ClientConnState{
		BalancerConfig: parsed,
		ResolverState:  resolver.State{Addresses: addrs, Endpoints: []resolver.Endpoint{{Addresses: addrs}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		st.policy.Close()
		for _, c := range st.conns {
			if c.hangUp != nil {
				c.hangUp()
			}
		}
	})
	synctest.Wait()
	return st
}

// onStage builds the child policy with an eye on where it is told states.
type onStage struct {
	balancer.Builder

	stage *stage
}

func (b onStage) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return b.Builder.Build(listening{cc, b.stage}, opts)
}

type listening struct {
	balancer.ClientConn

	stage *stage
}

func (l listening) NewSubConn(addrs []resolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	listener := opts.StateListener
	opts.StateListener = func(state balancer.SubConnState) {
		if !l.stage.speaking.Load() {
			l.stage.t.Errorf("the child is told %v, and not on gRPC's goroutine", state.ConnectivityState)
		}
		l.stage.mu.Lock()
		l.stage.told = append(l.stage.told, state.ConnectivityState)
		l.stage.mu.Unlock()
		listener(state)
	}
	return l.ClientConn.NewSubConn(addrs, opts) //nolint:staticcheck // deprecated for several addresses only
}

func (st *stage) notef(format string, args ...any) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.events = append(st.events, fmt.Sprintf(format, args...))
}

// happened returns the events since the last call, once all is at rest.
func (st *stage) happened() []string {
	synctest.Wait()
	st.mu.Lock()
	defer st.mu.Unlock()
	events := st.events
	st.events = nil
	return events
}

func (st *stage) expect(what string, want ...string) {
	st.t.Helper()
	if got := st.happened(); !slices.Equal(got, want) {
		st.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// expectInAnyOrder is expect for what happens side by side, such as a dial; want is
// sorted.
func (st *stage) expectInAnyOrder(what string, want ...string) {
	st.t.Helper()
	if got := st.happened(); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		st.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (st *stage) NewSubConn(_ []resolver.Address, opts balancer.NewSubConnOptions) (balancer.SubConn, error) {
	st.mu.Lock()
	slow := st.slow
	st.mu.Unlock()
	if slow != nil {
		<-slow
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	c := &scripted{stage: st, number: len(st.conns), listener: opts.StateListener, opts: opts}
	st.conns = append(st.conns, c)
	return c, nil
}

func (st *stage) UpdateState(s balancer.State) {
	st.mu.Lock()
	st.picker, st.state = s.Picker, s.ConnectivityState
	st.mu.Unlock()
	st.notef("picker %v", s.ConnectivityState)
}

func (st *stage) ResolveNow(resolver.ResolveNowOptions) {}

func (c *scripted) Connect()  { c.stage.notef("connect %d", c.number) }
func (c *scripted) Shutdown() { c.stage.notef("shutdown %d", c.number) }

func (c *scripted) UpdateAddresses(addrs []resolver.Address) {
	texts := make([]string, 0, len(addrs))
	for _, a := range addrs {
		texts = append(texts, a.Addr)
	}
	c.stage.notef("addresses of %d: %s", c.number, strings.Join(texts, " "))
}

func (c *scripted) RegisterHealthListener(listener func(balancer.SubConnState)) {
	c.stage.mu.Lock()
	slow := c.slow
	c.slow = nil
	c.stage.mu.Unlock()
	if slow != nil {
		<-slow
	}
	c.health = listener
	if listener != nil {
		c.stage.notef("watch %d", c.number)
	}
}

// GetOrBuildProducer is how the policy gets at the connection to probe it.
func (c *scripted) GetOrBuildProducer(b balancer.ProducerBuilder) (balancer.Producer, func()) {
	return b.Build(c)
}

// Invoke answers a probe, unless the connection is deaf.
func (c *scripted) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	if !c.deaf.Load() {
		return nil
	}
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

func (c *scripted) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "probes are unary")
}

// becomes tells the policy a state of the SubConn.
func (c *scripted) becomes(s connectivity.State) {
	c.stage.speaking.Store(true)
	c.listener(balancer.SubConnState{ConnectivityState: s})
	c.stage.speaking.Store(false)
	synctest.Wait()
}

// connects lets the dial succeed: the handshake, SETTINGS with limit, READY.
func (c *scripted) connects(limit uint32) {
	c.becomes(connectivity.Connecting)
	c.handshakes(limit)
	c.becomes(connectivity.Ready)
}

// handshakes lets the dial succeed but for READY.
func (c *scripted) handshakes(limit uint32) {
	c.reaches()
	c.allows(limit)
}

// reaches lets the dial get to the server, which sends no SETTINGS yet. What it sends on
// c.wire passes the tap, as in a transport.
func (c *scripted) reaches() {
	client, server := net.Pipe()
	conn, _, err := c.opts.CredsBundle.TransportCredentials().ClientHandshake(context.Background(), "a", socket{client, c.slowEnd}) //nolint:staticcheck // see newConnection
	if err != nil {
		c.stage.t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 1<<10)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	go c.acknowledge(server)
	if _, err := conn.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil { // and SETTINGS
		c.stage.t.Fatal(err)
	}
	c.wire = http2.NewFramer(server, nil)
	c.hangUp = func() { _, _ = client.Close(), server.Close() }
}

// socket is what a program's own dialer may return.
type socket struct {
	net.Conn

	slowEnd chan struct{}
}

func (s socket) Close() error {
	if s.slowEnd != nil {
		<-s.slowEnd
	}
	return s.Conn.Close()
}

// acknowledge is what the server's HTTP/2 does of its own accord.
func (c *scripted) acknowledge(server net.Conn) {
	if _, err := io.ReadFull(server, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	for fr := http2.NewFramer(server, server); ; {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() && !c.deaf.Load() {
			if fr.WriteSettingsAck() != nil {
				return
			}
		}
	}
}

// allows sends SETTINGS.
func (c *scripted) allows(limit uint32) {
	if err := c.wire.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: limit}); err != nil {
		c.stage.t.Fatal(err)
	}
	synctest.Wait()
}

// goesAway sends a final GOAWAY.
func (c *scripted) goesAway() {
	if err := c.wire.WriteGoAway(0, http2.ErrCodeNo, nil); err != nil {
		c.stage.t.Fatal(err)
	}
	synctest.Wait()
}

// call is one RPC, begun by a pick of gRPC.
type call struct {
	result balancer.PickResult
	err    error
	done   chan struct{} // closed when the pick has returned
	cancel context.CancelFunc
}

// begin picks, on a goroutine since that may wait.
func (st *stage) begin() *call {
	ctx, cancel := context.WithCancel(context.Background())
	c := &call{done: make(chan struct{}), cancel: cancel}
	st.t.Cleanup(cancel)
	st.mu.Lock()
	picker := st.picker
	st.mu.Unlock()
	go func() {
		defer close(c.done)
		c.result, c.err = picker.Pick(balancer.PickInfo{Ctx: ctx})
	}()
	synctest.Wait()
	return c
}

// on is the number of the connection that the call is on, -1 while it waits, -2 if
// the pick failed.
func (c *call) on() int {
	synctest.Wait()
	select {
	case <-c.done:
	default:
		return -1
	}
	if c.err != nil {
		return -2
	}
	return c.result.SubConn.(*scripted).number
}

func (c *call) end() {
	c.result.Done(balancer.DoneInfo{BytesReceived: true})
	synctest.Wait()
}

// connection is what the policy made for SubConn n.
func (st *stage) connection(n int) *connection {
	return st.subchannel().find(st.conns[n])
}

func (st *stage) subchannel() *subchannel { return st.policy.subchannels()[0] }

func (s *subchannel) find(sc balancer.SubConn) *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		if c.sc == sc {
			return c
		}
	}
	return nil
}
