package scenario_test

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/davidwartell/go-grpcpool/bench/peers"
	"github.com/davidwartell/go-grpcpool/bench/scenario"
)

// byCase are the figures of one round, by "case peer" and unit.
func byCase(t *testing.T, results []scenario.Result) map[string]map[string]float64 {
	t.Helper()
	all := map[string]map[string]float64{}
	for _, r := range results {
		name := r.Case + " " + r.Peer
		if all[name] != nil {
			t.Errorf("%s was recorded twice", name)
		}
		all[name] = map[string]float64{}
		for _, m := range r.Metrics {
			all[name][m.Unit] = m.Value
		}
	}
	return all
}

// want reports rows that are not there, or whose figures are not all in order.
func want(t *testing.T, got map[string]map[string]float64, ok func(figures map[string]float64) bool, rows ...string) {
	t.Helper()
	for _, row := range rows {
		if figures := got[row]; figures == nil || !ok(figures) {
			t.Errorf("%s: %v", row, figures)
		}
	}
	if len(got) != len(rows) {
		t.Errorf("%d rows, want %d: %v", len(got), len(rows), got)
	}
}

func TestIdleClientsAreMeasuredInWhateverTheyHold(t *testing.T) {
	got := byCase(t, quickly(t, "idle", 0))
	const nothing, lease, stream = "clients=5/held=nothing ", "clients=5/held=lease ", "clients=5/held=stream "
	want(t, got, func(f map[string]float64) bool { return f["heap-B"] > 0 && f["heap-ratio"] > 0 && f["cpu-us/s"] >= 0 },
		nothing+peers.Pool, nothing+peers.Scale, nothing+peers.Unsupervised, nothing+peers.Keepalive, nothing+peers.Defaults,
		lease+peers.Pool, stream+peers.Pool, stream+peers.Scale, stream+peers.Keepalive, stream+peers.Defaults)
	for _, row := range []string{nothing + peers.Defaults, stream + peers.Defaults} {
		if ratio := got[row]["heap-ratio"]; ratio != 1 {
			t.Errorf("%s is compared with something else than itself: %v", row, ratio)
		}
	}
}

func TestOpeningsAreMeasuredOneByOneAndAtOnceInPlaintextAndMutualTLS(t *testing.T) {
	rows := make([]string, 0, 16)
	for _, how := range []string{"sequential", "atonce"} {
		for _, creds := range []string{"plaintext", "mtls"} {
			for _, peer := range []string{peers.Pool, peers.OneFactory, peers.Scale, peers.Defaults} {
				rows = append(rows, "clients=5/opened="+how+"/creds="+creds+" "+peer)
			}
		}
	}
	want(t, byCase(t, quickly(t, "open", 1)), func(f map[string]float64) bool { return f["all-ms"] > 0 }, rows...)
}

func TestClientsComeBackAfterARestart(t *testing.T) {
	const down = "down=20ms "
	want(t, byCase(t, quickly(t, "restart", 0, peers.Pool, peers.Scale, peers.Fixed100ms)),
		func(f map[string]float64) bool {
			return f["firstgood-ms"] > 0 && f["firstgood-ms"] < 30_000 && f["dials"] > 0
		},
		down+peers.Pool, down+peers.Scale, down+peers.Fixed100ms)
}

func TestAMomentsStandstillIsMeasuredOnBothSides(t *testing.T) {
	const server, client = "stalled=server ", "stalled=client/burners=4 "
	want(t, byCase(t, quickly(t, "stall", 0)), func(f map[string]float64) bool { return f["completed"] > 0 && f["rate-ratio"] > 0 },
		server+peers.Pool, server+peers.Scale, server+peers.Defaults, client+peers.Pool, client+peers.Scale, client+peers.Defaults)
}

// aChild asks a child in this process.
type aChild struct {
	t   *testing.T
	out *json.Encoder
	in  *json.Decoder
}

func newChild(t *testing.T) aChild {
	t.Helper()
	requests, out := io.Pipe()
	in, responses := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- scenario.Serve(t.Context(), requests, responses) }()
	t.Cleanup(func() {
		out.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return aChild{t, json.NewEncoder(out), json.NewDecoder(in)}
}

// ask returns the error that the child answers with.
func (c aChild) ask(do string, args, reply any) string {
	c.t.Helper()
	if err := c.out.Encode(map[string]any{"do": do, "args": args}); err != nil {
		c.t.Fatal(err)
	}
	answer := struct {
		Reply json.RawMessage `json:"reply"`
		Error string          `json:"error"`
	}{}
	if err := c.in.Decode(&answer); err != nil {
		c.t.Fatal(err)
	}
	if reply != nil && answer.Error == "" {
		if err := json.Unmarshal(answer.Reply, reply); err != nil {
			c.t.Fatal(err)
		}
	}
	return answer.Error
}

// listening has the child listen, and returns the address.
func (c aChild) listening() string {
	c.t.Helper()
	var addresses []string
	if err := c.ask("listen", map[string]any{"Servers": 1}, &addresses); err != "" {
		c.t.Fatal(err)
	}
	return addresses[0]
}

func TestAServerThatIsDownRefusesConnectionsUntilItIsUp(t *testing.T) {
	c := newChild(t)
	address := c.listening()
	for _, do := range []string{"down", "up"} {
		if err := c.ask(do, address, nil); err != "" {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if (err == nil) != (do == "up") {
			t.Errorf("after %s: %v", do, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestStreamsThatNoLongerAnswerAreLostAndCallsThatDoNotFail(t *testing.T) {
	type endured struct{ Lost, Failed, Completed int }
	c := newChild(t)
	address := c.listening()
	if err := c.ask("load", map[string]any{"Peer": peers.Defaults, "Address": address, "Streams": 2}, nil); err != "" {
		t.Fatal(err)
	}
	const every = 2e7 // in nanoseconds: a caller makes one call in the time
	args := map[string]any{"Callers": 2, "Every": every, "Length": 1e7}
	var before, after endured
	if err := c.ask("run", args, &before); err != "" {
		t.Fatal(err)
	}
	if err := c.ask("down", address, nil); err != "" {
		t.Fatal(err)
	}
	if err := c.ask("run", args, &after); err != "" {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]endured{{Completed: 2}, {Lost: 2, Failed: 2}}, []endured{before, after}); diff != "" {
		t.Error(diff)
	}
}

func TestAChildSaysWhatItCannotDo(t *testing.T) {
	c := newChild(t)
	for do, wanted := range map[string]string{"dance": `cannot do "dance"`, "run": "there is no client", "down": "there is no server"} {
		var args any = map[string]any{}
		if do == "down" {
			args = "nowhere"
		}
		if err := c.ask(do, args, nil); !strings.Contains(err, wanted) {
			t.Errorf("%s: %q, want it to contain %q", do, err, wanted)
		}
	}
	if err := c.ask("load", map[string]any{"Peer": "nobody"}, nil); !strings.Contains(err, `no peer "nobody"`) {
		t.Errorf("load: %q", err)
	}
}
