// Package otelpool adds OpenTelemetry to a pool. Instrument, an option of the
// factory, traces and measures RPCs with otelgrpc, so that a call's client and
// server spans share one trace; Trace, an option of the pool, shows in the
// caller's trace when a call had to wait for a connection, and for what; Metrics,
// another, measures the pool itself: its connections, waits, leases and tests.
//
//	tracing := []otelpool.Option{otelpool.WithTracerProvider(tp), otelpool.WithMeterProvider(mp)}
//	factory, err := grpcpool.NewMutualTLSFactory(ca, cert, key, address, 30*time.Second, 10*time.Second, nil,
//		otelpool.Instrument(tracing...))
//	...
//	pool := shared.New(factory, 5*time.Minute, shared.WithName("orders"),
//		otelpool.Trace(tracing...), otelpool.Metrics(tracing...))
//
// The first call then looks like this:
//
//	the caller's span
//	├── grpcpool.wait                    the call waited for a connection
//	│   └── grpcpool.dial                one was being opened and tested
//	└── shop.Orders/Place                the call, on the client
//	    └── shop.Orders/Place            the call, on the server
//
// A call that finds the connection ready has no grpcpool span, and Get costs it
// no more than without Trace.
//
// # The server's half
//
// A server joins the trace with otelgrpc's own handler. Tell it which headers to
// read: OpenTelemetry's default, unless the program has set another, is none.
//
//	grpc.NewServer(grpc.StatsHandler(otelgrpc.NewServerHandler(
//		otelgrpc.WithTracerProvider(tp),
//		otelgrpc.WithPropagators(propagation.TraceContext{}),
//		otelgrpc.WithFilter(filters.Not(filters.HealthCheck())),
//	)))
//
// # Pings
//
// A pool pings its server about once a second while leases are out. Neither the
// pool nor the pings may fill a trace store by themselves, so: what the pool
// begins for nobody (its watchdog's tests), or for a caller without a span, makes
// no span, and neither do the RPCs of a ping made then, whatever they call; and
// RPCs of grpc.health.v1, the default ping, are neither traced nor measured
// unless WithHealthChecks says so. A ping made for a caller is visible as its
// grpcpool.dial or grpcpool.test. The server does not know who pings: the filter
// above is its own way to leave health checks out.
//
// The package sets nothing global.
package otelpool
