package plot_test

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/internal/plot"
)

// drawn is the part of a chart that the tests examine.
type drawn struct {
	Height float64 `xml:"height,attr"`
	Rects  []struct {
		Fill   string  `xml:"fill,attr"`
		Class  string  `xml:"class,attr"`
		X      float64 `xml:"x,attr"`
		Y      float64 `xml:"y,attr"`
		Width  string  `xml:"width,attr"` // may be 100%
		Height string  `xml:"height,attr"`
	} `xml:"rect"`
	Texts []struct {
		Class  string  `xml:"class,attr"`
		Anchor string  `xml:"text-anchor,attr"`
		X      float64 `xml:"x,attr"`
		Y      float64 `xml:"y,attr"`
		Text   string  `xml:",chardata"`
	} `xml:"text"`
}

func parse(t *testing.T, picture string) drawn {
	t.Helper()
	var d drawn
	if err := xml.Unmarshal([]byte(picture), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func twoByTwo() plot.Bars {
	return plot.Bars{Title: "a < b", Note: "note", Y: "ms", Groups: []string{"p50", "p99"}, Sets: []plot.Set{
		{Name: "one & only", Note: "10 calls/s", Values: []float64{100, 2000}, Labels: []string{"100!", "2000!"}},
		{Name: "other", Note: "20 calls/s", Values: []float64{1, 0}, Labels: []string{"1!", "-"}},
	}}
}

func TestBarsAreAsLongAsTheirValuesAndNameThem(t *testing.T) {
	picture := parse(t, check(t, twoByTwo(), "a < b", "note", "ms", "p50", "p99", "one & only", "10 calls/s", "other", "100!", "2000!", "1!", "-", "0", "500"))
	heights := make([]float64, 0, 3)
	for _, r := range picture.Rects {
		if r.Class != "" {
			continue
		}
		var tall float64
		if _, err := fmt.Sscan(r.Height, &tall); err != nil {
			t.Fatal(err)
		}
		heights = append(heights, tall)
	}
	if len(heights) != 3 {
		t.Fatalf("%d bars, want three: there is none for 0", len(heights))
	}
	if short, least, long := heights[0], heights[1], heights[2]; math.Abs(long/short-20) > 0.5 || least < 1 {
		t.Errorf("bars of 100, 1 and 2000 are %v, %v and %v long: want the last 20 times the first, and the least to be seen", short, least, long)
	}
}

func TestALongTitleIsWholeAndWithinThePicture(t *testing.T) {
	chart := twoByTwo()
	short := parse(t, check(t, chart)).Height
	chart.Title = "dns:///" + strings.Repeat("x", 100) + " /a.B/" + strings.Repeat("Y", 50) + " \u6f22\u5b57"
	picture := parse(t, check(t, chart))
	var lines strings.Builder
	for _, text := range picture.Texts {
		if text.Class == "title" {
			lines.WriteString(text.Text)
			if n := len([]rune(text.Text)); n > 72 {
				t.Errorf("a line of %d letters does not fit: %q", n, text.Text)
			}
		}
	}
	if want := strings.ReplaceAll(chart.Title, " ", ""); strings.ReplaceAll(lines.String(), " ", "") != want {
		t.Errorf("the lines are %q, want all of %q", lines.String(), want)
	}
	if want := short + 2*20; picture.Height != want {
		t.Errorf("the picture is %v high, want %v: three lines instead of one", picture.Height, want)
	}
}

// TestNoTextOfBarsStandsOnAnotherOrOutside assumes that a letter is 8 wide and 12 high.
func TestNoTextOfBarsStandsOnAnotherOrOutside(t *testing.T) {
	for _, high := range []float64{0.003, 0.29, 1, 61.2, 999, 1001, 6_100, 3_600_000} {
		chart := twoByTwo()
		chart.Sets[0].Values[1], chart.Sets[0].Labels[1] = high, fmt.Sprint(high)
		picture := parse(t, check(t, chart))
		type box struct{ left, right float64 }
		boxes := make([]box, len(picture.Texts))
		for i, a := range picture.Texts {
			wide := 8 * float64(len(a.Text))
			from := a.X - wide*map[string]float64{"middle": .5, "end": 1}[a.Anchor]
			boxes[i] = box{from, from + wide}
			if from < 0 || from+wide > 760 || a.Y < 12 || a.Y > picture.Height-4 {
				t.Errorf("%v: %q is outside", high, a.Text)
			}
			for j, b := range picture.Texts[:i] {
				if math.Abs(a.Y-b.Y) < 12 && boxes[i].left < boxes[j].right && boxes[j].left < boxes[i].right {
					t.Errorf("%v: %q and %q overlap", high, a.Text, b.Text)
				}
			}
		}
	}
}

func TestWhatNoXMLMayHoldIsReplaced(t *testing.T) {
	chart := twoByTwo()
	chart.Title = "unix:///a\x1b\x00\xffb"
	check(t, chart, "unix:///a\ufffd\ufffd\ufffdb")
	check(t, plot.Lines{Title: "\x1b"}, "\ufffd")
}
