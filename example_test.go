package grpcpool_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/identity"
	"github.com/davidwartell/go-grpcpool/shared"
)

// A program that uses the pool from end to end: a factory that does mutual TLS,
// a ping of its own, one pool, one lease.
func Example() {
	caCertPEM, clientCertPEM, clientKeyPEM, address, stop := startServer("localhost:8080")
	defer stop()

	mutualTLSConnectionFactory, err := grpcpool.NewMutualTLSFactory(
		caCertPEM,     // PEM encoded CA cert used to verify the server's cert during the handshake
		clientCertPEM, // PEM encoded client certificate
		clientKeyPEM,  // PEM encoded client private key
		address,       // "localhost:8080"

		// After this time without activity on a connection in use the client
		// pings it. Below 10s, 10s is used.
		30*time.Second,

		// A ping not answered within this time closes the connection.
		10*time.Second,

		// How the pool tests a connection (see below); nil is the health check.
		pingConn,
	)
	if err != nil {
		log.Panicf("error loading mutual TLS connection factory: %v", err)
	}

	// You probably want one pool shared by your whole app.
	pool := shared.New(
		mutualTLSConnectionFactory,

		// A channel that has been idle for longer than this is closed.
		5*time.Minute,
	)
	// The pool should be closed on shutdown of your app.
	defer pool.Close()

	ctx := context.Background()
	var conn grpcpool.PoolClientConn
	conn, err = pool.Get(ctx)
	if err != nil {
		log.Panic(err)
	}
	defer func() {
		if conn != nil {
			conn.Return()
		}
	}()

	// Do something useful with conn.Connection().
	answer, err := healthpb.NewHealthClient(conn.Connection()).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(answer.GetStatus())
	// Output: SERVING
}

// One identity for the factories of several servers, with an option of its own.
func ExampleNewIdentityFactory() {
	caCertPEM, clientCertPEM, clientKeyPEM, address, stop := startServer("localhost:0")
	defer stop()

	provider, err := identity.FromPEM(caCertPEM, clientCertPEM, clientKeyPEM, identity.WithMinTLSVersion(tls.VersionTLS12))
	if err != nil {
		log.Panic(err)
	}
	for _, server := range []string{address, "dns:///" + address} {
		factory, err := grpcpool.NewIdentityFactory(server, provider)
		if err != nil {
			log.Panic(err)
		}
		conn, err := factory.NewConnection(context.Background())
		if err != nil {
			log.Panic(err)
		}
		fmt.Println(conn.GetState(), "as", factory.Identity().Subject)
		_ = conn.Close()
	}
	// Output:
	// READY as CN=client
	// READY as CN=client
}

// A program that would rather have no channel than one to a server whose service does not
// serve.
func ExampleWithHealthCheck() {
	server := grpcpooltest.NewStandalone()
	if err := server.Start(context.Background()); err != nil {
		log.Panic(err)
	}
	defer server.Stop()
	server.Health.SetServingStatus("shop.v1.Orders", healthpb.HealthCheckResponse_NOT_SERVING)

	factory, err := grpcpool.NewFactory(server.Addr(), insecure.NewCredentials(), grpcpool.WithHealthCheck("shop.v1.Orders"))
	if err != nil {
		log.Panic(err)
	}
	pool := shared.New(factory, 5*time.Minute)
	defer pool.Close()
	_, err = pool.Get(context.Background())
	fmt.Println(errors.Is(err, grpcpool.ErrConnectionNotOK))

	server.Health.SetServingStatus("shop.v1.Orders", healthpb.HealthCheckResponse_SERVING)
	conn, err := factory.NewConnection(context.Background())
	if err != nil {
		log.Panic(err)
	}
	defer conn.Close()
	fmt.Println(conn.GetState())
	// Output:
	// true
	// READY
}

// pingConn does a gRPC ping-pong with the other side of conn. It returns the
// latency, or why there was no pong.
func pingConn(ctx context.Context, conn *grpc.ClientConn) (time.Duration, error) {
	start := time.Now()
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return time.Since(start), err
}

// startServer starts a server that wants client certificates, at the address, or
// at another port if that one is taken.
func startServer(address string) (caCertPEM, clientCertPEM, clientKeyPEM []byte, listening string, stop func()) {
	l, listening, stop := startLocalhost(address)
	return l.CA.PEM, l.Client.CertPEM, l.Client.KeyPEM, listening, stop
}

// startLocalhost is startServer, and all the certificates.
func startLocalhost(address string) (certs *grpcpooltest.Certs, listening string, stop func()) {
	l, err := grpcpooltest.NewCerts()
	if err != nil {
		log.Fatal(err)
	}
	config, err := l.CA.ServerConfig(l.Server)
	if err != nil {
		log.Fatal(err)
	}
	lis, err := net.Listen("tcp", address)
	if err != nil {
		lis, err = net.Listen("tcp", "localhost:0")
	}
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() {
		if err := server.Serve(lis); err != nil {
			log.Print(err)
		}
	}()
	_, port, err := net.SplitHostPort(lis.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	return l, net.JoinHostPort("localhost", port), server.Stop
}
