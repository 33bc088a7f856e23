package demo

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/shared"
	"github.com/davidwartell/go-grpcpool/snappy"
)

// setUp starts the server and makes the pool. If it fails it stops what it has started.
func (d *demo) setUp(ctx context.Context) error {
	ids, err := grpcpooltest.NewCerts()
	if err != nil {
		return err
	}
	config, err := ids.CA.ServerConfig(ids.Server)
	if err != nil {
		return err
	}
	d.traces = newTraces()
	d.server = grpcpooltest.NewStandalone(grpcpooltest.WithServerOptions(grpc.Creds(credentials.NewTLS(config)), grpc.MaxConcurrentStreams(streamLimit), d.traces.serverOption()))
	if err := d.server.Start(ctx); err != nil {
		return err
	}
	d.result.Server = d.server.Addr()
	d.record.serverCounts(d.server.Counts)

	tracing := otelpool.WithTracerProvider(d.traces.client)
	factory, err := grpcpool.NewMutualTLSFactory(ids.CA.PEM, ids.Client.CertPEM, ids.Client.KeyPEM, //nolint:contextcheck // it only looks up the name of a port
		d.server.Addr(), 30*time.Second, 10*time.Second, nil,
		otelpool.WithInstrumentation(tracing),
		grpcpool.WithDialOptions(grpc.WithDefaultCallOptions(grpc.UseCompressor(snappy.Name))))
	if err != nil {
		_ = d.server.Stop()
		return err
	}
	d.pool = shared.New(factory, d.cfg.Idle, shared.WithName("demo"), otelpool.WithTracing(tracing))
	d.callers = newCallers(testpb.NewBenchmarkServiceClient(d.pool), d.cfg, d.record)
	return nil
}

// load borrows the channel, which opens the connection, makes one call, traced with both, and
// then starts all callers.
func (d *demo) load(ctx context.Context) error {
	traced, span := d.traces.begin(ctx)
	err := d.borrowed(traced)
	span.End()
	if err != nil {
		return err
	}
	before, start := d.server.Counts(), time.Now()
	d.callers.start(ctx)
	if err := sleep(ctx, d.cfg.Duration); err != nil {
		return err
	}
	took, after := time.Since(start), d.server.Counts()
	d.result.Load = d.record.load(took)
	d.result.Load.Callers = d.cfg.Callers
	d.result.Load.Connections = after.Opened
	d.result.Load.Snappy = newSaving(after.MessageBytes-before.MessageBytes, after.WireBytes-before.WireBytes)
	d.result.Trace, err = d.traces.of(ctx, span.SpanContext().TraceID())
	return err
}

func (d *demo) borrowed(ctx context.Context) error {
	lease, err := d.pool.Get(ctx)
	if err != nil {
		return err
	}
	defer lease.Return()
	return d.callers.call(ctx)
}

// outage stops the server during the calls, and restarts it.
func (d *demo) outage(ctx context.Context) error {
	opened := d.server.Counts().Opened
	d.record.serverStops()
	if err := d.server.Stop(); err != nil {
		return err
	}
	if err := sleep(ctx, d.cfg.Outage); err != nil {
		return err
	}
	if err := d.server.Listen(ctx); err != nil {
		return err
	}
	recovered := d.record.serverIsBack()
	d.server.Serve()
	limit := time.NewTimer(d.cfg.RecoverWithin + grace)
	defer limit.Stop()
	select {
	case <-recovered:
	case <-limit.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	d.callers.stop()
	d.result.Outage = d.record.outage()
	d.result.Outage.Away = Milliseconds(d.cfg.Outage)
	d.result.Outage.RetryPause = Milliseconds(d.cfg.retryPause())
	d.result.Outage.Connections = d.server.Counts().Opened - opened
	return nil
}

// idle waits for the pool to close its connection, and calls once more.
func (d *demo) idle(ctx context.Context) error {
	start := time.Now()
	d.result.Idle = Idle{Timeout: Milliseconds(d.cfg.Idle)}
	if d.waitClosed(ctx, d.cfg.Idle+grace) {
		closed := Milliseconds(time.Since(start))
		d.result.Idle.ClosedAfter = &closed
	}
	start = time.Now()
	err := d.callers.call(ctx)
	d.result.Idle.NextCall = Milliseconds(time.Since(start))
	return err
}

// shutdown shuts down the pool and then the server.
func (d *demo) shutdown(ctx context.Context) error {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := d.pool.Shutdown(limited); err != nil {
		return err
	}
	d.result.Shutdown.Took = Milliseconds(time.Since(start))
	d.waitClosed(ctx, grace)
	stats, counts := d.pool.Stats(), d.server.Counts()
	d.result.Shutdown.LeasesLeft = stats.Leases
	d.result.Shutdown.ChannelsLeft = stats.Channels
	d.result.Shutdown.ConnectionsLeft = counts.Open
	d.result.Connections = counts.Opened
	return ctx.Err()
}

// waitClosed reports whether the server sees all connections closed in time.
func (d *demo) waitClosed(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return d.server.WaitOpen(ctx, 0) == nil
}
