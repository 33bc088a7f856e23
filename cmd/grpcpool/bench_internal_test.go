package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/load"
)

func limited(t *testing.T, streams uint32) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(streams))
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	return l.Addr().String()
}

func TestBenchMeasuresBothWaysAndSaysThatTheLimitWasReached(t *testing.T) {
	address := limited(t, 5)
	got := runLine(t.Context(), "bench", "--plaintext", "--callers", "20", "--duration", "400ms", address)
	if got.status != exitOK || got.stderr != "" {
		t.Fatalf("status %d, stderr %q, stdout:\n%s", got.status, got.stderr, got.stdout)
	}
	for _, want := range []string{
		"/grpc.health.v1.Health/Check", "20 callers", "5 streams per connection", "\nplain channel ", "\npool ", "p99.9",
		"The stream limit was reached: one connection carries 5 calls at a time, so on the plain channel 15 callers had to wait.", "####",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("there is no %q in:\n%s", want, got.stdout)
		}
	}
}

// A server that is busy with what it has is no faster with more connections.
func TestBenchBlamesTheLimitOnlyIfMoreConnectionsHelped(t *testing.T) {
	limit := uint32(20)
	for pool, want := range map[float64]bool{5000: false, 1000: true, 900: true} {
		got := limitReport(&benchDocument{Limit: &limit, Callers: 60, Results: []load.Result{
			{Way: "plain channel", CallsPerSecond: 1000, Connections: 1, Waiting: -1},
			{Way: "pool", CallsPerSecond: pool, Connections: 3},
		}})
		if strings.Contains(got, "did not make it faster") != want {
			t.Errorf("with %.0f calls a second over the pool and 1000 over the channel:\n%s", pool, got)
		}
	}
}

func TestBenchInJSON(t *testing.T) {
	s := newSite(t)
	got := runLine(t.Context(), append([]string{"bench", "--json", "--callers", "2", "--duration", "200ms", s.Addr()}, s.flags()...)...)
	var doc benchDocument
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatalf("%v in:\n%s%s", err, got.stdout, got.stderr)
	}
	if got.status != exitOK || doc.Limit != nil || len(doc.Results) != 2 {
		t.Errorf("status %d, %+v", got.status, doc)
	}
	for _, r := range doc.Results {
		if r.Calls == 0 || r.Failed != 0 || r.Connections != 1 {
			t.Errorf("%+v", r)
		}
	}
}

func TestBenchMisuseAndFailure(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, exitMisuse, "the server is missing"},
		{[]string{"a:1", "--callers", "0"}, exitMisuse, "--callers is 0; it must be from 1 to 100000"},
		{[]string{"a:1", "--duration", "1ms"}, exitMisuse, "--duration is 1ms"},
		{[]string{"a:1", "--data", "{}"}, exitMisuse, "--data requires --method"},
		{[]string{"a:1", "--method", "foo"}, exitMisuse, `--method "foo": it must be package.Service/Method; see`},
		{[]string{"a:1", "--method", "/foo/"}, exitMisuse, `--method "/foo/": it must be package.Service/Method`},
		{[]string{"a:1", "--method", "a.Foo/Bar/Baz"}, exitMisuse, `--method "a.Foo/Bar/Baz": it must be package.Service/Method`},
		{[]string{"a:1", "--method", "x", "--data", "@/no/such"}, exitMisuse, "--data: open /no/such"},
		{[]string{"127.0.0.1:1", "--plaintext"}, exitFailed, "nothing is listening at that address"},
		{[]string{limited(t, 5), "--plaintext", "--method", "a.B/C"}, exitFailed, "reflection service"},
	} {
		got := runLine(t.Context(), append([]string{"bench"}, tt.args...)...)
		if got.status != tt.status || got.stdout != "" || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want %d, nothing and %q", tt.args, got.status, got.stdout, got.stderr, tt.status, tt.want)
		}
	}
	if got := runLine(t.Context(), "help", "bench"); got.status != exitOK || !strings.Contains(got.stdout, "--max-connections") {
		t.Errorf("help: %+v", got)
	}
}
