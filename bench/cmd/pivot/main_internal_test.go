package main

import (
	"strings"
	"testing"
)

func TestATableHasMediansAndRatiosWithinRounds(t *testing.T) {
	const raw = `goos: linux
BenchmarkX/payload=a/peer=ours-2   10  1 ns/op  100 cpu-ns/op
BenchmarkX/payload=a/peer=base-2   10  1 ns/op  300 cpu-ns/op
BenchmarkX/payload=a/peer=base-2   10  1 ns/op  30 cpu-ns/op
BenchmarkX/payload=a/peer=ours-2   10  1 ns/op  10 cpu-ns/op
BenchmarkOther/payload=a/peer=ours-2   10  1 ns/op  9 cpu-ns/op
`
	o := options{bench: "X", metric: "cpu-ns/op", rows: "peer", cols: "payload", base: "base", scale: 10}
	table, err := read(strings.NewReader(raw), o)
	if err != nil {
		t.Fatal(err)
	}
	const want = "| | a |\n|---|---:|\n| base | 16.5 |\n| ours | 5.50 (3.00x) |\n"
	if got := table.markdown(o.base); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
