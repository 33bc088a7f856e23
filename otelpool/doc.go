// Package otelpool adds OpenTelemetry traces and metrics to a pool. [WithInstrumentation], an
// option of the factory, traces and measures RPCs. [WithTracing], an option of the pool, shows
// in a caller's trace that a call had to wait for a connection, and for what. [WithMetrics],
// another option of the pool, measures its connections, waits, leases and tests.
//
//	tracing := []otelpool.Option{otelpool.WithTracerProvider(tp), otelpool.WithMeterProvider(mp)}
//	factory, err := grpcpool.NewFactory(address, credentials.NewTLS(nil),
//		otelpool.WithInstrumentation(tracing...))
//	if err != nil {
//		return err
//	}
//	pool := shared.New(factory, 5*time.Minute, shared.WithName("orders"),
//		otelpool.WithTracing(tracing...), otelpool.WithMetrics(tracing...))
//	defer pool.Close()
//
// The trace of the first call then looks like this:
//
//	the caller's span
//	├── grpcpool.wait                    the call waited for a connection
//	│   └── grpcpool.dial                one was opened and tested
//	└── shop.Orders/Place                the call, on the client
//	    └── shop.Orders/Place            the call, on the server
//
// A call that finds the connection ready has no grpcpool span, and Get costs it no more
// than without WithTracing.
//
// # On the server
//
// A server joins the trace with otelgrpc's own handler. Set its propagators, as
// OpenTelemetry's global default reads no header:
//
//	grpc.NewServer(grpc.StatsHandler(otelgrpc.NewServerHandler(
//		otelgrpc.WithTracerProvider(tp),
//		otelgrpc.WithPropagators(propagation.TraceContext{}),
//		otelgrpc.WithFilter(filters.Not(filters.HealthCheck())),
//	)))
//
// # Pings
//
// While leases are out, a pool pings its server about once a second. So that pings do not
// fill a trace store:
//
//   - RPCs of grpc.health.v1, which is the default ping, are neither traced nor measured,
//     unless [WithHealthChecks] is given.
//   - A test or a dial that the pool begins by itself, or for a caller without a span,
//     makes no span, and neither do the RPCs of its ping.
//   - A ping for a caller with a span is part of the caller's grpcpool.dial or
//     grpcpool.test.
//
// A server cannot tell a ping from another health check. The filter in the example above
// leaves all health checks out.
//
// # Nil arguments
//
// A nil provider or propagator means the global one of OpenTelemetry. A nil [Option] or
// otelgrpc.Option is skipped, and reported to OpenTelemetry's error handler
// (otel.SetErrorHandler; by default it writes to the log).
//
// This package changes nothing global.
package otelpool
