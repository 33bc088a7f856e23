package scenario

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/davidwartell/go-grpcpool/bench/peers"
)

func borrow() *Scenario {
	return &Scenario{
		Name: "borrow", Title: "What it costs to get a connection and give it back",
		Text:  "`Get` and `Return` of our pool, and `BorrowObject` and `ReturnObject` of a pool that lends to one at a time; by 1 and by 64 goroutines, without a pause and without an RPC. The other peers have nothing to borrow.",
		Peers: []string{peers.Pool, peers.Exclusive},
		Units: []string{unitNs},
		run:   runBorrow,
	}
}

func runBorrow(ctx context.Context, e *Env) error {
	s, err := start(ctx, nil)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, p := range e.peers {
		op, done, err := leaser(ctx, p.Name, peers.Config{Target: s.target(), Size: 10})
		if err != nil {
			return err
		}
		for _, goroutines := range []int{1, 64} {
			perOp, err := timeOp(goroutines, 100, either(e, 200*time.Millisecond, time.Millisecond), op)
			if err != nil {
				done()
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			e.record(fmt.Sprintf("goroutines=%d", goroutines), p.Name, Metric{perOp, unitNs})
		}
		done()
	}
	return nil
}

// leaser is one Get and Return of a peer whose connection stands.
func leaser(ctx context.Context, peer string, c peers.Config) (op func() error, done func(), err error) {
	if peer == peers.Exclusive {
		b := peers.NewBorrower(c) //nolint:contextcheck // the pool outlives the context
		op = func() error {
			_, giveBack, err := b.Borrow(ctx)
			if err != nil {
				return err //nolint:wrapcheck // says what it was
			}
			giveBack()
			return nil
		}
		return op, b.Close, op()
	}
	p, err := peers.NewSharedPool(c) //nolint:contextcheck // the pool outlives the context
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // says what it was
	}
	op = func() error {
		l, err := p.Get(ctx)
		if err != nil {
			return err //nolint:wrapcheck // says what it was
		}
		l.Return()
		return nil
	}
	return op, func() { _ = p.Close() }, op()
}

// timeOp has goroutines do op for so long and returns the nanoseconds of one, on
// the wall's clock: what goroutines wait for one another counts.
// Each does a batch between looks at it.
func timeOp(goroutines, batch int, length time.Duration, op func() error) (float64, error) {
	var ops atomic.Int64
	begin := time.Now()
	end := begin.Add(length)
	err := inParallel(goroutines, func(int) error {
		for time.Now().Before(end) {
			for range batch {
				if err := op(); err != nil {
					return err
				}
			}
			ops.Add(int64(batch))
		}
		return nil
	})
	return float64(time.Since(begin).Nanoseconds()) / float64(ops.Load()), err
}
