package scenario_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/davidwartell/go-grpcpool/bench/compressors"
	"github.com/davidwartell/go-grpcpool/bench/peers"
	"github.com/davidwartell/go-grpcpool/bench/scenario"
)

func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{scenario.ServeArgument}) { // a child of a test
		if err := scenario.Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// What google.golang.org/api starts when it is loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// quickly runs a round of a scenario for a moment.
func quickly(t *testing.T, name string, round int, peers ...string) []scenario.Result {
	t.Helper()
	all := scenario.All()
	i := slices.IndexFunc(all, func(s *scenario.Scenario) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("there is no scenario %s", name)
	}
	var mu sync.Mutex
	var results []scenario.Result
	err := all[i].Run(t.Context(), scenario.Env{
		Quick: true, Round: round, Rounds: 1,
		Record: func(r scenario.Result) {
			mu.Lock()
			defer mu.Unlock()
			results = append(results, r)
		},
	}, peers...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// snappyRound runs a round of that scenario for a moment.
func snappyRound(t *testing.T, round int, names ...string) []scenario.Result {
	t.Helper()
	return quickly(t, "snappy", round, names...)
}

func TestEveryCompressorIsMeasuredAtEveryKindOfMessage(t *testing.T) {
	results := snappyRound(t, 0)
	for _, load := range compressors.Payloads() {
		for _, c := range compressors.All() {
			i := slices.IndexFunc(results, func(r scenario.Result) bool {
				return r.Case == "payload="+load.Name && r.Peer == c.Name
			})
			if i < 0 {
				t.Errorf("nothing of %s at %s", c.Name, load.Name)
				continue
			}
			for _, m := range results[i].Metrics {
				// CPU time may be less than its clock shows, in so short a run.
				if m.Value <= 0 && m.Unit != "cpu-us/op" {
					t.Errorf("%s at %s: %v %s", c.Name, load.Name, m.Value, m.Unit)
				}
			}
		}
	}
}

func TestOnlyTheNamedCompressorsRunAndAnotherBeginsEachRound(t *testing.T) {
	for round, first := range []string{compressors.Ours, compressors.Original, compressors.Ours} {
		results := snappyRound(t, round, compressors.Original, peers.Plain, compressors.Ours)
		if want := 2 * len(compressors.Payloads()); len(results) != want {
			t.Errorf("round %d: %d results, want %d", round, len(results), want)
		}
		if len(results) > 0 && results[0].Peer != first {
			t.Errorf("round %d begins with %s, want %s", round, results[0].Peer, first)
		}
	}
}

func TestConnectionPeersOnlyLeaveTheCompressorsOut(t *testing.T) {
	if results := snappyRound(t, 0, peers.Plain); len(results) > 0 {
		t.Errorf("results: %v", results)
	}
}

// A name that is misspelt would leave its peer out of the report, and a name that two
// have would run both.
func TestEveryPeerOfAScenarioIsOneThatThereIs(t *testing.T) {
	for _, s := range scenario.All() {
		for _, name := range s.Peers {
			if n := len(peers.Named(name)) + len(compressors.Named(name)); n != 1 {
				t.Errorf("%s: there are %d of %q", s.Name, n, name)
			}
		}
	}
}
