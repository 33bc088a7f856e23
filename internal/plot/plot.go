// Package plot draws charts as SVG that are legible on light and dark pages: lines and
// strips for the bench report, bars for "grpcpool bench".
//
//	chart := plot.Lines{Title: "Throughput", X: "callers", Y: "calls/s", Series: []plot.Series{
//		{Name: "pool", X: []float64{10, 100, 1000}, Y: []float64{9e3, 4e4, 4e4}},
//	}}
//	_, err := chart.WriteTo(file)
package plot

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	width  = 760
	left   = 70 // of the axes
	right  = 150
	header = 44
	footer = 46
)

// style adapts the text to the page. A page that shows the picture as an image passes on
// the reader's preference for light or dark.
const style = `<style>
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600; fill: #24292f }
.grid { stroke: #8c959f; stroke-opacity: .35 }
@media (prefers-color-scheme: dark) { text { fill: #9ea7b3 } .title { fill: #e6edf3 } }
</style>
`

// colors can be distinguished on white and on black, and by most color-blind readers.
var colors = []string{"#d1495b", "#3b82c4", "#8a6fc9", "#2a9d8f", "#c98a1b", "#7a8794", "#c05a9d", "#6f9a2f", "#00879e"}

// Series is one line of a chart.
type Series struct {
	Name string
	X, Y []float64 // of the same length
}

// Lines is a chart of lines over two logarithmic axes. All values must be above 0.
type Lines struct {
	Title, X, Y string
	Series      []Series
}

// WriteTo draws the chart.
func (l Lines) WriteTo(w io.Writer) (int64, error) {
	const height = 400
	var xs, ys []float64
	for _, s := range l.Series {
		xs, ys = append(xs, s.X...), append(ys, s.Y...)
	}
	x := newAxis(xs, left+10, width-right)
	slices.Sort(xs)
	xs = slices.Compact(xs)
	if len(xs) > 1 { // the axis ends at the outermost points
		x.low, x.high = math.Log10(xs[0]), math.Log10(xs[len(xs)-1])
	}
	y := newAxis(ys, height-footer, header)
	var b strings.Builder
	open(&b, height, l.Title)
	for _, t := range y.ticks() {
		line(&b, left, y.at(t), width-right, y.at(t), `class="grid"`)
		text(&b, left-8, y.at(t)+4, "end", short(t))
	}
	for _, t := range xs {
		text(&b, x.at(t), height-footer+18, "middle", short(t))
	}
	text(&b, (left+width-right)/2, height-8, "middle", l.X)
	text(&b, left, header-6, "start", l.Y)
	for i, s := range l.Series {
		color := colors[i%len(colors)]
		points := make([]string, len(s.X))
		for j := range s.X {
			points[j] = fmt.Sprintf("%.1f,%.1f", x.at(s.X[j]), y.at(s.Y[j]))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x.at(s.X[j]), y.at(s.Y[j]), color)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), color)
		row := float64(header + 20*i + 10)
		line(&b, width-right+14, row, width-right+34, row, fmt.Sprintf(`stroke="%s" stroke-width="3"`, color))
		text(&b, width-right+40, row+4, "start", s.Name)
	}
	return finish(w, &b)
}

// Point is one step of a strip.
type Point struct {
	Value  float64 // 0: nothing is drawn
	Failed bool
}

// Strip is one row of a Strips.
type Strip struct {
	Name   string
	Points []Point // one for each step
}

// Strips is a chart of rows with a common linear X axis and logarithmic Y axes. Values are
// bars; failures are red at the foot of the row.
type Strips struct {
	Title, X, Y string
	From, Step  float64 // of X: the start of the first point, and the length of each
	Marks       []Mark
	Strips      []Strip
}

// Mark is a vertical line with a name.
type Mark struct {
	At   float64
	Name string
}

// WriteTo draws the strips.
func (s Strips) WriteTo(w io.Writer) (int64, error) {
	const row, gap = 54, 12
	var values []float64
	steps := 0
	for _, strip := range s.Strips {
		for _, p := range strip.Points {
			if p.Value > 0 {
				values = append(values, p.Value)
			}
		}
		steps = max(steps, len(strip.Points))
	}
	height := header + len(s.Strips)*(row+gap) + footer
	foot := float64(height - footer)
	to := s.From + s.Step*float64(steps)
	x := func(v float64) float64 { return left + 30 + (v-s.From)/(to-s.From)*(width-left-50) }
	var b strings.Builder
	open(&b, height, s.Title)
	for i, strip := range s.Strips {
		bottom := float64(header + i*(row+gap) + row)
		y := newAxis(values, bottom-6, bottom-row)
		for _, t := range y.ticks() {
			line(&b, left+30, y.at(t), width-20, y.at(t), `class="grid"`)
			text(&b, left+24, y.at(t)+4, "end", short(t))
		}
		text(&b, 4, bottom-row/2, "start", strip.Name)
		s.bars(&b, strip, x, y, bottom, colors[i%len(colors)])
	}
	for _, m := range s.Marks {
		line(&b, x(m.At), header-4, x(m.At), foot, `stroke="#8c959f" stroke-dasharray="4 3"`)
		text(&b, x(m.At)+3, header-2, "start", m.Name)
	}
	for _, t := range linear(s.From, to) {
		text(&b, x(t), foot+16, "middle", short(t))
	}
	text(&b, (left+width)/2, float64(height)-8, "middle", s.X+"; "+s.Y)
	return finish(w, &b)
}

func (s Strips) bars(b *strings.Builder, strip Strip, x func(float64) float64, y axis, bottom float64, color string) {
	for j, p := range strip.Points {
		from, to := x(s.From+s.Step*float64(j)), x(s.From+s.Step*float64(j+1))
		if p.Value > 0 {
			top := y.at(p.Value)
			rect(b, from, top, to-from, bottom-4-top, color)
		}
		if p.Failed {
			rect(b, from, bottom-4, to-from, 5, "#e5322d")
		}
	}
}

// axis is a logarithmic axis, from the power of ten below its values to the one above.
type axis struct{ low, high, from, to float64 }

func newAxis(values []float64, from, to float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, math.Log10(v)), max(high, math.Log10(v))
	}
	if len(values) == 0 {
		low, high = 0, 1
	}
	low, high = math.Floor(low), math.Ceil(high)
	return axis{low, max(high, low+1), from, to}
}

func (a axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

func (a axis) ticks() []float64 {
	var ticks []float64
	step := math.Ceil((a.high - a.low) / (math.Abs(a.to-a.from) / 14)) // leaves room for the labels
	for e := a.low; e <= a.high; e += step {
		ticks = append(ticks, math.Pow(10, e))
	}
	return ticks
}

// linear returns about ten round numbers from low to high.
func linear(low, high float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	if (high-low)/step > 15 {
		step *= 2
	}
	var ticks []float64
	for t := math.Ceil(low/step) * step; t <= high+step/1e6; t += step {
		ticks = append(ticks, t+0) // no -0
	}
	return ticks
}

func open(b *strings.Builder, height int, title string) {
	begin(b, height, title)
	heading(b, 4, 18, title)
}

func begin(b *strings.Builder, height int, title string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(b, "<title>%s</title>\n%s", escape(title), style)
}

func heading(b *strings.Builder, x, y int, s string) {
	fmt.Fprintf(b, `<text class="title" x="%d" y="%d">%s</text>`+"\n", x, y, escape(s))
}

func finish(w io.Writer, b *strings.Builder) (int64, error) {
	b.WriteString("</svg>\n")
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, attributes string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, attributes)
}

func rect(b *strings.Builder, x, y, w, h float64, color string) {
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, w, h, color)
}

func text(b *strings.Builder, x, y float64, anchor, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, escape(s))
}

// escape also replaces characters that are invalid in XML, such as control characters: a
// single one makes browsers reject the picture.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}

// short writes 10000 as 10k.
func short(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v/1000, 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
