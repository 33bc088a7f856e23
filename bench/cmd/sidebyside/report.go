package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"

	"github.com/davidwartell/go-grpcpool/bench/peers"
	"github.com/davidwartell/go-grpcpool/bench/scenario"
)

// table holds the values of a raw file, in the order of the rounds.
type table struct {
	cases  []string // as they come
	cells  map[key][]float64
	config []string // "key: value"
}

type key struct{ name, peer, unit string }

func read(path string) (*table, error) {
	f, err := os.Open(path) //nolint:gosec // the caller's own directory
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	t := &table{cells: map[key][]float64{}}
	for r := benchfmt.NewReader(f, path); r.Scan(); {
		switch rec := r.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, rec
		case *benchfmt.Result:
			t.add(rec)
		}
	}
	return t, nil
}

func (t *table) add(r *benchfmt.Result) {
	if t.config == nil {
		for _, c := range r.Config {
			if c.File {
				t.config = append(t.config, c.Key+": "+string(c.Value))
			}
		}
	}
	_, parts := r.Name.Parts()
	var name []string
	var peer string
	for _, p := range parts {
		s := strings.TrimPrefix(string(p), "/")
		if v, ok := strings.CutPrefix(s, "peer="); ok {
			peer = v
		} else if !strings.HasPrefix(s, "-") {
			name = append(name, s)
		}
	}
	k := key{name: strings.Join(name, "/"), peer: peer}
	if !slices.Contains(t.cases, k.name) {
		t.cases = append(t.cases, k.name)
	}
	for _, v := range r.Values {
		k.unit = v.Unit
		value := v.Value
		if v.OrigUnit != "" {
			k.unit, value = v.OrigUnit, v.OrigValue
		}
		t.cells[k] = append(t.cells[k], value)
	}
}

// markdown is one table for each case, with a row for each of the peers that there
// are of those named, and the units that there are of those wanted.
func (t *table) markdown(names, wanted []string) string {
	var b strings.Builder
	for _, name := range t.cases {
		var rows []string
		units := slices.DeleteFunc(slices.Clone(wanted), func(u string) bool {
			return !slices.ContainsFunc(names, func(peer string) bool { return len(t.cells[key{name, peer, u}]) > 0 })
		})
		rounds := 0
		for _, peer := range names {
			row, n := t.row(name, peer, units)
			if n > 0 {
				rows = append(rows, row)
				rounds = max(rounds, n)
			}
		}
		fmt.Fprintf(&b, "| %s (%d times) | %s |\n|---|%s\n%s\n", strings.ReplaceAll(name, "/", ", "), rounds,
			strings.Join(units, " | "), strings.Repeat("---:|", len(units)), strings.Join(rows, ""))
	}
	return b.String()
}

func (t *table) row(name, peer string, units []string) (row string, n int) {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |", peer)
	for _, u := range units {
		values := t.cells[key{name, peer, u}]
		n = max(n, len(values))
		if len(values) == 0 {
			b.WriteString(" |")
			continue
		}
		fmt.Fprintf(&b, " **%s** (%s to %s%s) |", number(median(values)), number(slices.Min(values)), number(slices.Max(values)), tail(values))
	}
	b.WriteByte('\n')
	return b.String(), n
}

// tail is the 90th percentile of as many values as it says something of.
func tail(values []float64) string {
	if len(values) < 20 {
		return ""
	}
	v := slices.Sorted(slices.Values(values))
	return ", p90 " + number(v[len(v)*9/10])
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// number prints three digits, or all before the point, with commas.
func number(v float64) string {
	switch {
	case v >= 1000:
		s := strconv.FormatFloat(v, 'f', 0, 64)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case v >= 100, v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// rawFile is where the raw results of a scenario are.
func rawFile(dir, scenario string) string {
	if scenario == "snappy" {
		scenario = "snappy-sidebyside" // snappy.txt is what "make snappy" writes
	}
	return filepath.Join(dir, scenario+".txt")
}

// pictures of each scenario, under its tables.
var pictures = map[string][]string{
	"saturation": {"throughput.svg", "p99.svg"},
	recovery:     {"outage-1s.svg", "outage-30s.svg"},
	"rotation":   {"rotation.svg"},
	"stuck":      {"stuck.svg"},
}

const preface = `# Peers side by side

Made by %[1]smake bench%[1]s or %[1]smake quiet%[1]s in bench/, which measure again. Client and server share one process and its cores, except where a scenario has another for the server. **Median** (least to most) of the rounds; peers take turns in another order each round, or run at the same time where a scenario mostly waits. The machine is a small virtual one and noisy: differences within the spread mean nothing. Raw results, for benchstat, are beside this file.

`

const besides = `Not measured, since the module proxy does not serve them: github.com/shimingyah/pool and github.com/processout/grpc-go-pool. Spanner's own pool needs its sessions. The compressors are listed in their scenario, the last; as they are part of this program, gRPC names them in a header of every call here, which costs all peers alike an allocation a call. Package snappy's further cases (one message over and over, calls over loopback, memory kept in pools) have [a report of their own](snappy.md), and package scale's are in [scale.benchstat](scale.benchstat).

`

// writeReport writes the tables from the raw results in dir, and the pictures that
// are made of them.
func writeReport(dir string) error {
	var b strings.Builder
	fmt.Fprintf(&b, preface, "`")
	var sections strings.Builder
	var config []string
	measured := map[string]bool{} // scenarios and peers
	for _, s := range scenario.All() {
		t, err := read(rawFile(dir, s.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if config == nil {
			config = t.config
		}
		measured[s.Name] = true
		for k := range t.cells {
			measured[k.peer] = true
		}
		if err := section(&sections, dir, s, t); err != nil {
			return err
		}
	}
	fmt.Fprintf(&b, "    %s\n\n## The peers\n\nN is the number of connections that a scenario grants.\n\n| peer | is, and how it is set |\n|---|---|\n", strings.Join(config, "\n    "))
	for _, p := range peers.All() {
		if measured[p.Name] {
			fmt.Fprintf(&b, "| %s | %s |\n", p.Name, p.Settings)
		}
	}
	b.WriteByte('\n')
	if measured["snappy"] { // the others' report has few of the peers
		b.WriteString(besides)
	}
	b.WriteString(sections.String())
	found, err := os.ReadFile(filepath.Join(dir, "findings.md")) //nolint:gosec // the caller's own directory
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.Write(found)
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(b.String()), 0o644) //nolint:gosec // results are for everybody
}

func section(b *strings.Builder, dir string, s *scenario.Scenario, t *table) error {
	fmt.Fprintf(b, "## %s\n\n%s\n\n%s", s.Title, s.Text, t.markdown(s.Peers, s.Units))
	if s.Name == "saturation" {
		for file, chart := range map[string]struct{ unit, title string }{
			"throughput.svg": {"calls/s", "Throughput over callers: 100 streams a connection, 20 ms a call"},
			"p99.svg":        {"p99-ms", "p99 over callers: 100 streams a connection, 20 ms a call"},
		} {
			if err := draw(filepath.Join(dir, file), overCallers(t, chart.unit, chart.title)); err != nil {
				return err
			}
		}
	}
	for _, file := range pictures[s.Name] {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			fmt.Fprintf(b, "![%s](%s)\n\n", strings.TrimSuffix(file, ".svg"), file)
		}
	}
	return nil
}
