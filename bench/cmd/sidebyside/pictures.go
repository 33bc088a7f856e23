package main

import (
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/bench/peers"
	"github.com/davidwartell/go-grpcpool/bench/scenario"
	"github.com/davidwartell/go-grpcpool/internal/plot"
)

type named struct {
	name    string
	picture io.WriterTo
}

// window is the part of a trace that a picture shows.
type window struct {
	scenario, name string // of the trace, and of its case
	file, title    string
	from, to, step time.Duration
	marks          []plot.Mark
}

// recovery has two of the pictures.
const recovery = "recovery"

var windows = []window{
	{recovery, "down=1s", "outage-1s.svg", "Through an outage of one second: a call every 20 ms", -1500 * time.Millisecond, 3500 * time.Millisecond, 20 * time.Millisecond, []plot.Mark{{At: -1, Name: "down"}, {At: 0, Name: "back"}}},
	{recovery, "down=30s", "outage-30s.svg", "Through an outage of 30 seconds: a call every 20 ms", -31 * time.Second, 22 * time.Second, 200 * time.Millisecond, []plot.Mark{{At: -30, Name: "down"}, {At: 0, Name: "back"}}},
	{"rotation", "age=1s", "rotation.svg", "A server that ends connections after a second; a dial takes 50 ms", 0, 8 * time.Second, 40 * time.Millisecond, nil},
	{"stuck", "backends=2", "stuck.svg", "One of two backends stops answering: four callers, timeout 1 s", -time.Second, 18 * time.Second, 100 * time.Millisecond, []plot.Mark{{At: 0, Name: "stopped"}}},
}

func tracePictures(traces []scenario.Trace) []named {
	var pictures []named
	for _, w := range windows {
		if strips := w.strips(traces); len(strips) > 0 {
			pictures = append(pictures, named{w.file, plot.Strips{
				Title: w.title, X: "seconds", Y: "worst latency in ms of good calls begun then; red at the foot: calls that failed",
				From: w.from.Seconds(), Step: w.step.Seconds(), Marks: w.marks, Strips: strips,
			}})
		}
	}
	return pictures
}

func (w window) strips(traces []scenario.Trace) []plot.Strip {
	var strips []plot.Strip
	for _, p := range peers.All() {
		i := slices.IndexFunc(traces, func(t scenario.Trace) bool {
			return t.Scenario == w.scenario && t.Case == w.name && t.Peer == p.Name
		})
		if i < 0 {
			continue
		}
		points := make([]plot.Point, int((w.to-w.from)/w.step))
		for _, c := range traces[i].Calls {
			j := int((c.At - w.from) / w.step)
			if c.At < w.from || j >= len(points) {
				continue
			}
			if c.Failed {
				points[j].Failed = true
				continue
			}
			points[j].Value = max(points[j].Value, c.Took.Seconds()*1000)
		}
		strips = append(strips, plot.Strip{Name: p.Name, Points: points})
	}
	return strips
}

// overCallers draws a metric of the saturation scenario over the callers.
func overCallers(t *table, unit, title string) plot.Lines {
	const handler = "handler=20ms/callers="
	chart := plot.Lines{Title: title, X: "callers", Y: unit}
	for _, p := range peers.All() {
		values := map[float64]float64{}
		for _, name := range t.cases {
			n, err := strconv.Atoi(strings.TrimPrefix(name, handler))
			if cell := t.cells[key{name, p.Name, unit}]; err == nil && len(cell) > 0 {
				values[float64(n)] = median(cell)
			}
		}
		s := plot.Series{Name: p.Name, X: slices.Sorted(maps.Keys(values))}
		for _, x := range s.X {
			s.Y = append(s.Y, values[x])
		}
		if len(s.X) > 0 {
			chart.Series = append(chart.Series, s)
		}
	}
	return chart
}
