package plot_test

import (
	"fmt"
	"strings"

	"github.com/davidwartell/go-grpcpool/internal/plot"
)

func Example() {
	chart := plot.Bars{
		Title:  "api:443, 1,000 callers",
		Y:      "ms",
		Groups: []string{"p50", "p99"},
		Sets: []plot.Set{
			{Name: "plain channel", Note: "981 calls/s", Values: []float64{980, 3150}, Labels: []string{"980", "3150"}},
			{Name: "pool", Note: "9,730 calls/s", Values: []float64{102, 112}, Labels: []string{"102", "112"}},
		},
	}
	var file strings.Builder // or an *os.File
	if _, err := chart.WriteTo(&file); err != nil {
		fmt.Println(err)
		return
	}
	begin, _, _ := strings.Cut(file.String(), "\n")
	fmt.Println(begin)
	// Output: <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 386" width="760" height="386" role="img">
}
