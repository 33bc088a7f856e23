package plot_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/internal/plot"
)

func TestAChartIsWellFormedAndNamesItsSeries(t *testing.T) {
	chart := plot.Lines{Title: "a < b", X: "callers", Y: "calls/s", Series: []plot.Series{
		{Name: "one & only", X: []float64{10, 1000}, Y: []float64{500, 20000}},
		{Name: "flat", X: []float64{10, 1000}, Y: []float64{500, 500}},
	}}
	check(t, chart, "a < b", "one & only", "flat", "calls/s", "100k", "10", "1k")
}

func TestStripsShowValuesAndFailures(t *testing.T) {
	strips := plot.Strips{Title: "t", X: "s", Y: "ms", From: -1, Step: 0.5, Marks: []plot.Mark{{At: 0, Name: "back"}}, Strips: []plot.Strip{
		{Name: "good", Points: []plot.Point{{Value: 1}, {Value: 10}, {Value: 2}}},
		{Name: "bad", Points: []plot.Point{{Failed: true}, {}, {Value: 3}}},
	}}
	drawn := check(t, strips, "good", "bad", "back", "-1")
	if bars := strings.Count(drawn, "<rect"); bars != 5 {
		t.Errorf("%d bars, want four values and one failure", bars)
	}
}

func TestNothingToDrawIsAnEmptyPicture(t *testing.T) {
	check(t, plot.Lines{Title: "empty"}, "empty")
	check(t, plot.Bars{Title: "bare"}, "bare")
	check(t, plot.Strips{Title: "none", Step: 1, Strips: []plot.Strip{{Name: "x", Points: make([]plot.Point, 2)}}}, "none")
}

// check draws, and checks that the texts are there.
func check(t *testing.T, picture io.WriterTo, texts ...string) string {
	t.Helper()
	var b strings.Builder
	if _, err := picture.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if data, ok := token.(xml.CharData); ok {
			found[string(data)] = true
		}
	}
	for _, want := range texts {
		if !found[want] {
			t.Errorf("the text %q is missing in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Errorf("a coordinate that is not a number in\n%s", b.String())
	}
	return b.String()
}
