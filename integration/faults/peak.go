//go:build linux

package faults

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// peak watches how many dials there are at a time, of those that begin later than
// it. A nil peak watches nothing.
type peak struct {
	running sync.WaitGroup
	stop    chan struct{} // nil: not begun, or ended
	most    int           // this and err are for whoever has called end
	err     error
}

func (p *peak) begin() {
	if p == nil || p.stop != nil {
		return
	}
	p.stop = make(chan struct{})
	before, _ := dialling() // what cannot be read is told by highest
	p.running.Go(func() {
		tick := time.NewTicker(5 * looks)
		defer tick.Stop()
		for {
			now, err := dialling()
			p.err = errors.Join(p.err, err)
			p.most = max(p.most, len(slices.DeleteFunc(now, func(local string) bool { return slices.Contains(before, local) })))
			select {
			case <-tick.C:
			case <-p.stop:
				return
			}
		}
	})
}

func (p *peak) end() {
	if p == nil || p.stop == nil {
		return
	}
	close(p.stop)
	p.running.Wait()
	p.stop = nil
}

func (p *peak) highest() (int, error) {
	p.end()
	return p.most, p.err
}
