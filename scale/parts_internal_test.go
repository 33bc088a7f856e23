package scale

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

func TestAPickAllocatesNothing(t *testing.T) {
	play(t, `{}`, func(st *stage) {
		st.conns[0].connects(1)
		filling, waiting := st.begin(), st.begin()
		st.conns[1].connects(100)
		if filling.on() != 0 || waiting.on() != 1 {
			t.Fatal("want the oldest connection full and a second one")
		}
		info := balancer.PickInfo{Ctx: t.Context()}
		allocs := testing.AllocsPerRun(1000, func() {
			result, err := st.picker.Pick(info)
			if err != nil {
				t.Fatal(err)
			}
			result.Done(balancer.DoneInfo{BytesReceived: true})
		})
		if allocs != 0 {
			t.Errorf("a pick and its Done allocate %v times, want 0", allocs)
		}
	})
}

func TestTheBoundsOfAConnection(t *testing.T) {
	const none = tap.Unlimited
	for _, tc := range []struct {
		name        string
		set         func(*settings)
		server      uint32
		known       bool
		room, limit int64
	}{
		{"the server's limit", func(*settings) {}, 100, true, 99, 99},
		{"the limit of which none is kept for probes", func(*settings) {}, 9, true, 9, 9},
		{"no probes", func(s *settings) { s.probeInterval = 0 }, 100, true, 100, 100},
		{"the server's limit of 0", func(*settings) {}, 0, true, 0, 0},
		{"no limit", func(*settings) {}, none, true, 128, noLimit},
		{"no tap", func(*settings) {}, none, false, noLimit, noLimit},
		{"no limit, one connection", func(s *settings) { s.unlimitedStreams = 0 }, none, true, noLimit, noLimit},
		{"WithMaxStreams below the limit", func(s *settings) { s.maxStreams = 7 }, 100, true, 7, 7},
		{"WithMaxStreams above the limit", func(s *settings) { s.maxStreams = 200 }, 100, true, 99, 99},
		{"WithMaxStreams and no limit", func(s *settings) { s.maxStreams = 200 }, none, true, 200, 200},
		{"WithMaxStreams and no tap", func(s *settings) { s.maxStreams = 7 }, none, false, 7, 7},
		{"WithQueueInTransport", func(s *settings) { s.queueInTransport = true }, 100, true, 99, noLimit},
		{"WithQueueInTransport and a limit of 0", func(s *settings) { s.queueInTransport = true }, 0, true, 0, noLimit},
	} {
		s := defaultSettings()
		tc.set(&s)
		if room, limit := s.bounds(tc.server, tc.known); room != tc.room || limit != tc.limit {
			t.Errorf("%s: %d and %d, want %d and %d", tc.name, room, limit, tc.room, tc.limit)
		}
	}
}

func TestRewritingAServiceConfig(t *testing.T) {
	for given, want := range map[string]string{
		`{}`: `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"pick_first": {}}]}}]}`,
		`{"loadBalancingPolicy": "round_robin", "x": [1]}`:                                `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"round_robin": {}}]}}], "x": [1]}`,
		`{"loadBalancingPolicy": "nobody_knows"}`:                                         `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"pick_first": {}}]}}]}`,
		`{"LoadBalancingPOLICY": "round_robin"}`:                                          `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"round_robin": {}}]}}]}`,
		`{"loadBalancingConfig": null, "loadBalancingPolicy": "round_robin"}`:             `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"round_robin": {}}]}}]}`,
		`{"loadBalancingConfig": [{"nobody": {}}, {"round_robin": {"a": 1}}]}`:            `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"nobody": {}}, {"round_robin": {"a": 1}}]}}]}`,
		`{"loadBalancingConfig": [{"nobody": {}}, {"grpcpool_scale": {"a": 1}}]}`:         `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "a": 1}}]}`,
		`{"loadBalancingConfig": [{"grpcpool_scale": null}]}`:                             `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7}}]}`,
		`{"loadBalancingConfig": [{"round_robin": {}}, {"grpcpool_scale": {}}]}`:          `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"round_robin": {}}, {"grpcpool_scale": {}}]}}]}`,
		`{"methodConfig": [{"timeout": "1s"}], "healthCheckConfig": {"serviceName": ""}}`: `{"loadBalancingConfig": [{"grpcpool_scale": {"handle": 7, "childPolicy": [{"pick_first": {}}]}}], "methodConfig": [{"timeout": "1s"}], "healthCheckConfig": {"serviceName": ""}}`,
	} {
		var got, expected any
		if err := json.Unmarshal([]byte(rewrite(given, 7)), &got); err != nil {
			t.Errorf("%s: %v", given, err)
		}
		if err := json.Unmarshal([]byte(want), &expected); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", given, diff)
		}
	}
	for _, bad := range []string{"", "null", "[", `"x"`, "[]"} {
		if got := rewrite(bad, 7); got != bad {
			t.Errorf("%q became %q, want it left for grpc-go to refuse", bad, got)
		}
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add(`{"loadBalancingConfig": [{"round_robin": {}}]}`)
	f.Add(`{"loadBalancingConfig": [{"grpcpool_scale": {"childPolicy": null}}], "loadBalancingPolicy": 1}`)
	f.Fuzz(func(t *testing.T, js string) {
		got := rewrite(js, 7)
		if json.Valid([]byte(js)) != json.Valid([]byte(got)) {
			t.Errorf("%q became %q", js, got)
		}
	})
}

// NewClient depends on it: if this fails, grpc-go has changed its dial options.
func TestTheDialOptionsOfThisGRPCCanBeRead(t *testing.T) {
	one, two := manual.NewBuilderWithScheme("one"), manual.NewBuilderWithScheme("two")
	plain, err := seeThrough([]grpc.DialOption{
		grpc.WithDefaultServiceConfig("first"),
		WithMaxConnections(3),
		grpc.EmptyDialOption{},
		grpc.WithResolvers(one),
		grpc.WithUserAgent("x"),
		grpc.WithMaxHeaderListSize(1),
		grpc.WithResolvers(two),
		grpc.WithDefaultServiceConfig("last"),
	})
	found, ok := inspect(plain)
	if err != nil || !ok {
		t.Fatalf("the dial options cannot be read: %v", err)
	}
	if len(found.resolvers) != 2 || found.resolvers[0] != resolver.Builder(one) || found.resolvers[1] != resolver.Builder(two) {
		t.Errorf("the resolvers are %v", found.resolvers)
	}
	if found.serviceConfig == nil || *found.serviceConfig != "last" {
		t.Errorf("the service config is %v, want the last one", found.serviceConfig)
	}
	if found, ok := inspect(nil); !ok || found.resolvers != nil || found.serviceConfig != nil {
		t.Errorf("of no options %+v was found", found)
	}
}

func TestAChannelForgetsAddressesWhenThereAreTooMany(t *testing.T) {
	var m Memory
	for i := range 3 * maxRemembered {
		m.note(strconv.Itoa(i), func(l *learned) { l.limit, l.limited = uint32(i), true })
	}
	if n := len(m.byAddr); n != maxRemembered {
		t.Errorf("%d addresses are remembered, want %d", n, maxRemembered)
	}
	const last = 3*maxRemembered - 1
	if got := m.recall(strconv.Itoa(last)); !got.limited || got.limit != last {
		t.Errorf("of the last address is known %+v", got)
	}
}

func TestTheBucketGivesABurstAndThenARate(t *testing.T) {
	var b bucket
	now := time.Now()
	for i, step := range []struct {
		after     time.Duration
		ask, want int
	}{
		{0, 10, 10},
		{0, 10, 6},
		{0, 1, 0},
		{dialEvery - 1, 1, 0},
		{1, 5, 1},
		{3*dialEvery + 10, 5, 3},
		{dialEvery - 10, 5, 1},
		{time.Hour, 100, dialBurst},
	} {
		now = now.Add(step.after)
		if got := b.take(now, step.ask); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	if got := b.untilNext(now); got != dialEvery {
		t.Errorf("the next token comes in %v, want %v", got, dialEvery)
	}
}

func TestALostPacketSaysNothingOfTheTimeThatADialNeeds(t *testing.T) {
	const ms = time.Millisecond
	for name, tc := range map[string]struct {
		known, took time.Duration
		progress    tap.Progress
		told        bool
		want        time.Duration
	}{
		"a first dial":                         {0, 20 * ms, tap.Progress{RoundTrip: 10 * ms}, true, 20 * ms},
		"a later one, slower":                  {20 * ms, 1200 * ms, tap.Progress{RoundTrip: 10 * ms}, true, 1200 * ms},
		"its first packet was lost":            {20 * ms, 7020 * ms, tap.Progress{RoundTrip: 10 * ms, Resent: 3}, true, 20 * ms},
		"the first dial's first packet":        {0, 1020 * ms, tap.Progress{RoundTrip: 10 * ms, Resent: 1}, true, 10 * ms},
		"the answer was late":                  {20 * ms, 1500 * ms, tap.Progress{RoundTrip: 1490 * ms, Resent: 1}, true, 1490 * ms},
		"nobody tells":                         {20 * ms, 900 * ms, tap.Progress{}, false, 900 * ms},
		"nobody tells, and a packet is missed": {20 * ms, 1020 * ms, tap.Progress{}, false, 20 * ms},
		"nobody tells, of a first dial":        {0, 1020 * ms, tap.Progress{}, false, 1020 * ms},
		"it was far, and a packet was lost":    {9000 * ms, 1020 * ms, tap.Progress{RoundTrip: 10 * ms, Resent: 1}, true, 1020 * ms},
		"it was far, and nobody tells":         {9000 * ms, 2000 * ms, tap.Progress{}, false, 2000 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			l := learned{connect: tc.known}
			if l.noteConnect(tc.took, tc.progress, tc.told); l.connect != tc.want {
				t.Errorf("a dial is thought to take %v, want %v", l.connect, tc.want)
			}
		})
	}
}
