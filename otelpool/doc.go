// Package otelpool adds OpenTelemetry traces and metrics to a pool. [WithInstrumentation], an
// option of the factory, traces and measures RPCs. [WithTracing], an option of the pool, shows
// in a caller's trace that Get had to wait for a connection, and for what. [WithMetrics],
// another option of the pool, counts the calls made on it, and measures its connections,
// waits, leases and tests.
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
// The trace of the first Get, and of a call on its lease, then looks like this:
//
//	the caller's span
//	├── grpcpool.wait                    Get waited for a connection
//	│   └── grpcpool.dial                one was opened and tested
//	└── shop.Orders/Place                the call, on the client
//	    └── shop.Orders/Place            the call, on the server
//
// A Get that finds the connection ready has no grpcpool span, and costs no more than
// without WithTracing. A call made on the pool itself has none either: it is a call on the
// channel, and its span includes its wait for a connection.
//
// Every call made on the pool has its span and its measurement, also one that fails since
// the server is not there. They are those of a plain channel.
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
// A pool pings its server to test its channel. So that pings do not fill a trace store:
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
