// Command observe calls a server through a pool and shows what the pool does: metrics
// for Prometheus at /metrics, and the live page at /debug/poolz:
//
//	go run ./observe -address api.example.com:443 -listen localhost:9090
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/otelpool"
	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/shared"
)

func main() {
	address := flag.String("address", "localhost:443", "the server, as host:port")
	listen := flag.String("listen", "localhost:9090", "where to serve the metrics and the page")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := listenAndRun(ctx, *address, *listen)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func listenAndRun(ctx context.Context, address, listen string) error {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	defer lis.Close()
	fmt.Printf("metrics at http://%s/metrics, the pool at http://%[1]s/debug/poolz\n", lis.Addr())
	return run(ctx, address, credentials.NewTLS(nil), lis)
}

// run calls the server every second, and serves the metrics and the page, until ctx ends.
func run(ctx context.Context, address string, creds credentials.TransportCredentials, lis net.Listener) error {
	// Metrics go to a Prometheus registry. Spans go nowhere here: give NewTracerProvider
	// an exporter, and call its Shutdown at the end.
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return err
	}
	telemetry := []otelpool.Option{
		otelpool.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))),
		otelpool.WithTracerProvider(sdktrace.NewTracerProvider()),
		otelpool.WithHealthChecks(), // this program's calls are health checks, which are left out otherwise
	}

	// WithInstrumentation traces and measures the calls, WithTracing and WithMetrics the pool itself.
	factory, err := grpcpool.NewFactory(address, creds, otelpool.WithInstrumentation(telemetry...))
	if err != nil {
		return err
	}
	pool := shared.New(factory, 5*time.Minute, shared.WithName("orders"),
		otelpool.WithTracing(telemetry...), otelpool.WithMetrics(telemetry...))
	defer pool.Close()

	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/debug/poolz", poolz.Handler([]poolz.Pool{pool}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()

	callEverySecond(ctx, pool)
	if err := server.Close(); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func callEverySecond(ctx context.Context, pool *shared.Pool) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if _, err := healthpb.NewHealthClient(pool).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil && ctx.Err() == nil {
			log.Print(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
