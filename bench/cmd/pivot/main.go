// Command pivot makes a markdown table of benchmark output. Benchmarks are named
// Name/key=value/key=value; two keys become the rows and the columns, and a cell is
// the median of a metric over all rounds (or -count repetitions).
//
//	pivot -bench RoundTrip -metric cpu-ns/op -scale 1000 -rows peer -cols payload -base mostynb results/snappy.txt
//
// With -base, a cell also says how many times as much that row's value is, as the
// median of the ratios within each round: noise that lasts longer than a round
// cancels out.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

type options struct {
	bench, metric, rows, cols, base string
	scale                           float64
}

func main() {
	var o options
	flag.StringVar(&o.bench, "bench", "", "`name` of the benchmark, without Benchmark")
	flag.StringVar(&o.metric, "metric", "ns/op", "`unit` of the metric")
	flag.StringVar(&o.rows, "rows", "peer", "`key` whose values are the rows")
	flag.StringVar(&o.cols, "cols", "payload", "`key` whose values are the columns")
	flag.StringVar(&o.base, "base", "", "`row` that the others are compared with")
	flag.Float64Var(&o.scale, "scale", 1, "what to divide by")
	flag.Parse()
	if flag.NArg() != 1 || o.bench == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(o, flag.Arg(0), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pivot:", err)
		os.Exit(1)
	}
}

func run(o options, path string, w io.Writer) error {
	f, err := os.Open(path) //nolint:gosec // the caller's own file
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	t, err := read(f, o)
	if err != nil {
		return err
	}
	if len(t.rows) == 0 {
		return fmt.Errorf("%s: no Benchmark%s with %s", path, o.bench, o.metric)
	}
	_, err = io.WriteString(w, t.markdown(o.base))
	return err
}

// table holds the values of each cell in the order of the rounds.
type table struct {
	rows, cols []string
	cells      map[[2]string][]float64
}

// procs is the suffix that package testing puts behind a name.
var procs = regexp.MustCompile(`-\d+$`)

func read(r io.Reader, o options) (*table, error) {
	t := &table{cells: map[[2]string][]float64{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark"+o.bench+"/") {
			continue
		}
		keys := map[string]string{}
		for part := range strings.SplitSeq(procs.ReplaceAllString(fields[0], ""), "/") {
			if key, value, ok := strings.Cut(part, "="); ok {
				keys[key] = value
			}
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if fields[i+1] != o.metric {
				continue
			}
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", lines.Text(), err)
			}
			t.add(keys[o.rows], keys[o.cols], v/o.scale)
		}
	}
	return t, lines.Err()
}

func (t *table) add(row, col string, v float64) {
	if !slices.Contains(t.rows, row) {
		t.rows = append(t.rows, row)
		slices.Sort(t.rows) // rounds differ in their order
	}
	if !slices.Contains(t.cols, col) {
		t.cols = append(t.cols, col)
	}
	t.cells[[2]string{row, col}] = append(t.cells[[2]string{row, col}], v)
}

func (t *table) markdown(base string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(t.cols, " | "), strings.Repeat("---:|", len(t.cols)))
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, col := range t.cols {
			fmt.Fprintf(&b, " %s |", t.cell(row, col, base))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (t *table) cell(row, col, base string) string {
	values := t.cells[[2]string{row, col}]
	if len(values) == 0 {
		return ""
	}
	s := number(median(values))
	other := t.cells[[2]string{base, col}]
	if base == "" || row == base || len(other) != len(values) {
		return s
	}
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = other[i] / values[i]
	}
	return fmt.Sprintf("%s (%.2fx)", s, median(ratios))
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// number prints three digits, or all before the point.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
