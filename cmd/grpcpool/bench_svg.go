package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/load"
	"github.com/davidwartell/go-grpcpool/internal/plot"
)

// pictureFile is the file of --svg, nil if there is none.
type pictureFile struct {
	file *os.File
	made bool // it did not exist before, and is removed again unless there are results
}

// openPicture is called before the measurement, so that a file that cannot be written is
// reported before minutes of load. It leaves the file's content as it is.
func openPicture(name string) (*pictureFile, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // nil has methods
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the user chose the file, and shows it to others
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		file, err = os.OpenFile(name, os.O_WRONLY, 0) //nolint:gosec // likewise
	}
	if err != nil {
		return nil, fmt.Errorf("--svg: %w; choose a file that can be written", err)
	}
	return &pictureFile{file, made}, nil
}

func (p *pictureFile) write(chart io.WriterTo) error {
	if p == nil {
		return nil
	}
	err := p.replace(chart)
	if err != nil {
		return fmt.Errorf("--svg: the results are printed, but the picture cannot be written: %w; make room, or choose another file", err)
	}
	p.made = false // it stays
	return nil
}

func (p *pictureFile) replace(chart io.WriterTo) error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() { // a pipe or a device cannot be truncated
		if err := p.file.Truncate(0); err != nil {
			return err
		}
	}
	if _, err := chart.WriteTo(p.file); err != nil {
		return err
	}
	return p.file.Close()
}

// close removes an empty file, which would look like a result.
func (p *pictureFile) close() {
	if p == nil {
		return
	}
	_ = p.file.Close() // it is closed already if it was written
	if p.made {
		_ = os.Remove(p.file.Name()) // it is empty; a failure does no harm
	}
}

// benchPicture draws the results, with all that is needed to read them.
func benchPicture(doc *benchDocument, each time.Duration) plot.Bars {
	chart := plot.Bars{
		Title: fmt.Sprintf("%s %s, %s", doc.Target, doc.Method, counted(doc.Callers, "caller")),
		Note:  fmt.Sprintf("Latency of successful calls; %s each; %s", plainly(each), doc.allowed()),
		Y:     "ms",
		Sets:  make([]plot.Set, len(doc.Results)),
	}
	for i, r := range doc.Results {
		chart.Sets[i].Name, chart.Sets[i].Note = r.Way, benchLegend(r)
	}
	for _, q := range quantiles {
		chart.Groups = append(chart.Groups, q.name)
		for i, r := range doc.Results {
			label := figure(q.of(r))
			if r.Calls == r.Failed {
				label = "-"
			}
			s := &chart.Sets[i]
			s.Values, s.Labels = append(s.Values, q.of(r)), append(s.Labels, label)
		}
	}
	return chart
}

func benchLegend(r load.Result) string {
	failed := "no call failed"
	switch {
	case r.Calls == 0:
		failed = "no call was answered"
	case r.Failed > 0:
		failed = fmt.Sprintf("%s of %s failed", group(uint64(r.Failed)), counted(int(r.Calls), "call"))
	}
	return fmt.Sprintf("%s calls/s over %s, %s", group(uint64(r.CallsPerSecond)), counted(r.Connections, "connection"), failed)
}
