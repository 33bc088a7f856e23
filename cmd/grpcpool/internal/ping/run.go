package ping

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/reason"
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
	var call answer.Call
	said, err := healthpb.NewHealthClient(lease.Connection()).Check(ctx, &healthpb.HealthCheckRequest{}, call.Options()...)
	p := Ping{Time: milliseconds(time.Since(start))}
	switch {
	case err == nil:
		p.Health = said.GetStatus().String()
	case call.Of(err).Kind == answer.GRPC:
		p.Health = health(status.Convert(err))
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Ping{Error: "no answer within " + timeout.String()}
	default:
		return Ping{Error: Explain(err)}
	}
	return p
}

// health is what a server says that answers a health check by a status. It is there,
// whatever that is.
func health(st *status.Status) string {
	switch st.Code() {
	case codes.Unimplemented:
		return "no health service"
	case codes.NotFound:
		return "the health service has no status for the whole server"
	default:
		return strings.TrimSuffix(fmt.Sprintf("the health check returned %v: %s", st.Code(), reason.OneLine(st.Message())), ": ")
	}
}

// Alive is a grpcpool.PingFunc for which every answer is life: one in gRPC, whatever
// the status, a stream that is reset, and one in HTTP, since a proxy may pass on the
// program's methods and know none of the health service's. What calls come to is then
// for each to say.
func Alive(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	var call answer.Call
	start := time.Now()
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, call.Options()...)
	took := time.Since(start)
	switch call.Of(err).Kind {
	case answer.GRPC, answer.Reset:
		return took, nil
	case answer.HTTP:
		if reason.Of(err) != reason.ClientCertificate { // which nginx refuses after the handshake
			return took, nil
		}
	case answer.Unsent:
		if conn.GetState() == connectivity.Ready {
			return took, &answer.NoVerdictError{Err: err, Text: "the health check was not sent: " + reason.Detail(err)}
		}
	case answer.None:
	}
	return took, fmt.Errorf("ping: health check: %w", err)
}
