package plot

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

const (
	margin   = 20
	barsTall = 220 // from the axis to its highest label
	barsLeft = margin + 44
)

// paper is the background of a picture that is shown elsewhere: the page may be light and
// its reader's preference dark, or the other way round.
const paper = `<style>@media (prefers-color-scheme: dark) { .paper { fill: #0d1117 } }</style>
<rect class="paper" fill="#fff" width="100%" height="100%"/>
`

// Bars is a chart of bars in groups. Its axis is linear and begins at 0, so that a bar of
// twice the length is twice the value; on a logarithmic axis lengths would depend on
// where it begins. Every bar has a label, however small it is.
type Bars struct {
	Title  string // takes as many lines as it needs
	Note   string // below the title; takes as many lines as it needs
	Y      string
	Groups []string
	Sets   []Set
}

// Set is one bar in each group.
type Set struct {
	Name, Note string    // for the legend
	Values     []float64 // one for each group; no bar is drawn unless it is above 0
	Labels     []string  // one for each value, shown above its bar
}

// WriteTo draws the chart.
func (c Bars) WriteTo(w io.Writer) (int64, error) {
	var head strings.Builder
	top := float64(c.head(&head) + 44) // room for the name of the axis, and for a label on the longest bar
	bottom := top + barsTall
	var b strings.Builder
	begin(&b, int(bottom)+18+margin, c.Title)
	b.WriteString(paper + head.String())

	high, step := scale(c.highest())
	text(&b, barsLeft-8, top-16, "end", c.Y)
	for i := range int(math.Round(high/step)) + 1 {
		y := bottom - float64(i)*step/high*barsTall
		line(&b, barsLeft, y, width-margin, y, `class="grid"`)
		text(&b, barsLeft-8, y+4, "end", strconv.FormatFloat(float64(i)*step, 'g', 8, 64)) // not 0.30000000000000004
	}
	slot := float64(width-margin-barsLeft) / float64(max(1, len(c.Groups)))
	each := slot * .8 / float64(max(1, len(c.Sets)))
	for i, group := range c.Groups {
		middle := barsLeft + (float64(i)+.5)*slot
		text(&b, middle, bottom+20, "middle", group)
		for j, s := range c.Sets {
			x := middle + (float64(j)-float64(len(c.Sets))/2)*each
			tall := 0.0
			if v := s.Values[i]; v > 0 {
				tall = max(1, v/high*barsTall) // visible even if tiny
				rect(&b, x+2, bottom-tall, each-4, tall, colors[j%len(colors)])
			}
			label(&b, x+each/2, bottom-tall-6, s.Labels[i])
		}
	}
	return finish(w, &b)
}

func (c Bars) highest() float64 {
	high := 0.0
	for _, s := range c.Sets {
		for _, v := range s.Values {
			high = max(high, v)
		}
	}
	return high
}

// label writes a label, and covers the grid line behind it.
func label(b *strings.Builder, x, y float64, s string) {
	wide := 7.5 * float64(columns(s))
	fmt.Fprintf(b, `<rect class="paper" fill="#fff" x="%.1f" y="%.1f" width="%.1f" height="14"/>`+"\n", x-wide/2, y-11, wide)
	text(b, x, y, "middle", s)
}

// head draws what is above the bars, and returns where it ends.
func (c Bars) head(b *strings.Builder) int {
	y := margin - 6
	for _, s := range wrap(c.Title, 72) {
		y += 20
		heading(b, margin, y, s)
	}
	y += 4
	for _, s := range wrap(c.Note, 100) {
		y += 16
		text(b, margin, float64(y), "start", s)
	}
	y += 6
	longest := 0
	for _, s := range c.Sets {
		longest = max(longest, columns(s.Name))
	}
	for i, s := range c.Sets {
		y += 20
		row := float64(y)
		line(b, margin, row-4, margin+14, row-4, fmt.Sprintf(`stroke="%s" stroke-width="11"`, colors[i%len(colors)]))
		text(b, margin+22, row, "start", s.Name)
		text(b, margin+22+7*float64(longest+2), row, "start", s.Note)
	}
	return y
}

// scale returns a round number of at least high, and a round step that divides it into a
// few.
func scale(high float64) (top, step float64) {
	if high <= 0 {
		return 1, 1
	}
	power := math.Pow(10, math.Floor(math.Log10(high/5)))
	for _, times := range []float64{1, 2, 5, 10} {
		if step = power * times; high/step <= 6 {
			break
		}
	}
	return math.Ceil(high/step) * step, step
}

// wrap breaks s into lines of at most that many columns, at spaces if possible. SVG does
// not wrap text, and what is wider than the picture is cut off.
func wrap(s string, most int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && columns(line)+1+columns(word) <= most {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		line = ""
		for _, r := range word {
			if columns(line)+columns(string(r)) > most {
				lines = append(lines, line)
				line = ""
			}
			line += string(r)
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// columns is the approximate width of s: East Asian letters are two columns wide.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r >= '\u1100' {
			n++
		}
	}
	return n
}
