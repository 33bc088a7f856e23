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

// Config configures Run.
type Config struct {
	Count    int           // 0: until the context ends
	Interval time.Duration // between the starts of two pings
	Timeout  time.Duration // of one ping, including the dial
}

// Ping is one ping. If it was not answered it has an Error.
type Ping struct {
	Seq    int     `json:"seq"`
	Time   float64 `json:"ms"`               // of the round trip, without the dial
	Health string  `json:"health,omitempty"` // the answer of the health service, or why there is none
	Error  string  `json:"error,omitempty"`
}

// Summary summarizes pings. Times are in milliseconds.
type Summary struct {
	Sent        int     `json:"sent"`
	Answered    int     `json:"answered"`
	Loss        float64 `json:"loss"` // from 0 to 1
	Min         float64 `json:"min_ms"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Max         float64 `json:"max_ms"`
	Connections uint64  `json:"connections"` // successful dials
}

// Run pings through pool until the count is reached or ctx ends. It calls each for every
// ping.
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

// once pings once. The time starts when it has a lease.
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
	switch kind := call.Of(err).Kind; {
	case err == nil:
		p.Health = said.GetStatus().String()
	case kind == answer.GRPC:
		p.Health = health(status.Convert(err))
	case kind == answer.Reset:
		p.Health = "the server reset the stream of the health check"
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return Ping{Error: "no answer within " + timeout.String()}
	default:
		return Ping{Error: Explain(err)}
	}
	return p
}

// health describes the status that a server has answered a health check with. Any status
// proves that the server is there.
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

// Alive is a grpcpool.PingFunc that accepts every answer as a sign of life: any gRPC
// status, a stream that is reset, and a plain HTTP response, since an HTTP proxy may route
// the program's methods and not the health service's. Whether calls succeed, they tell
// themselves.
func Alive(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	var call answer.Call
	start := time.Now()
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, call.Options()...)
	took := time.Since(start)
	switch call.Of(err).Kind {
	case answer.GRPC, answer.Reset:
		return took, nil
	case answer.HTTP:
		if reason.Of(err) != reason.ClientCertificate { // nginx refuses it after the handshake
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
