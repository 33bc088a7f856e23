package ping

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/shared"
)

// Config says how to ping.
type Config struct {
	Count    int           // 0: until the context ends
	Interval time.Duration // from one ping's start to the next one's
	Timeout  time.Duration // of one ping, the dial included
}

// Ping is one ping. It is answered or has an Error.
type Ping struct {
	Seq    int     `json:"seq"`
	Time   float64 `json:"ms"`               // of the round trip, without dialling
	Health string  `json:"health,omitempty"` // what the health service said, or why it said nothing
	Error  string  `json:"error,omitempty"`
}

// Summary is what pings come to. Times are in milliseconds.
type Summary struct {
	Sent        int     `json:"sent"`
	Answered    int     `json:"answered"`
	Loss        float64 `json:"loss"` // from 0 to 1
	Min         float64 `json:"min_ms"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Max         float64 `json:"max_ms"`
	Connections uint64  `json:"connections"` // that were dialled
}

// Run pings through pool until the count is reached or ctx ends. each is called
// for every ping, on Run's goroutine.
func Run(ctx context.Context, pool *shared.Pool, cfg Config, each func(Ping)) Summary {
	var times []float64
	s := Summary{}
	ticker := time.NewTicker(cfg.Interval)
	defer ticker.Stop()
	for seq := 1; ctx.Err() == nil; seq++ {
		p := once(ctx, pool, cfg.Timeout)
		if p.Error != "" && ctx.Err() != nil {
			break // cut short
		}
		p.Seq = seq
		s.Sent++
		if p.Error == "" {
			times = append(times, p.Time)
		}
		each(p)
		if seq == cfg.Count {
			break
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	s.Answered, s.Connections = len(times), pool.Stats().Dials-pool.Stats().DialsFailed
	if s.Sent > 0 {
		s.Loss = 1 - float64(s.Answered)/float64(s.Sent)
	}
	if len(times) > 0 {
		slices.Sort(times)
		s.Min, s.Max = times[0], times[len(times)-1]
		s.P50, s.P99 = rank(times, 0.5), rank(times, 0.99)
	}
	return s
}

// rank is the nearest-rank percentile.
func rank(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// once is one ping. The lease is taken before the clock is started.
func once(ctx context.Context, pool *shared.Pool, timeout time.Duration) Ping {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	lease, err := pool.Get(ctx)
	if err != nil {
		return Ping{Error: Explain(err)}
	}
	defer lease.Return()
	start := time.Now()
	answer, err := healthpb.NewHealthClient(lease.Connection()).Check(ctx, &healthpb.HealthCheckRequest{})
	p := Ping{Time: milliseconds(time.Since(start))}
	switch status.Code(err) {
	case codes.OK:
		p.Health = answer.GetStatus().String()
	case codes.Unimplemented:
		p.Health = "no health service"
	case codes.NotFound:
		p.Health = "the health service does not speak for the whole server"
	default:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return Ping{Error: "no answer within " + timeout.String()}
		}
		return Ping{Error: Explain(err)}
	}
	return p
}
