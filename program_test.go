package grpcpool_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
	"github.com/davidwartell/go-grpcpool/snappy"
)

// The program of the first README of these packages compiles and works as it was
// written, but for where its files and its server are.
func TestTheProgramOfTheFirstREADMEWorks(t *testing.T) {
	server := grpcpooltest.NewServer(t, grpcpooltest.WithMutualTLS())
	dir := t.TempDir()
	if _, err := server.Certs().WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	read := func(file string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}

	factory, err := grpcpool.NewMutualTLSFactory(
		read("ca.pem"), read("client.pem"), read("client-key.pem"), server.Addr(),
		30*time.Second, 10*time.Second, // keepalive: time, timeout
		nil, // how to test a connection; nil is the gRPC health check
		grpcpool.WithDialOptions(grpc.WithDefaultCallOptions(grpc.UseCompressor(snappy.Name))),
	)
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, 5*time.Minute) // close the channel after five idle minutes
	defer pool.Close()

	// Borrow the channel for as many calls as you like ...
	conn, err := pool.Get(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Return()
	answer, err := healthpb.NewHealthClient(conn.Connection()).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING || err != nil {
		t.Errorf("on a lease: %v, %v", answer.GetStatus(), err)
	}

	// ... or let each call borrow for itself: the pool is a grpc.ClientConnInterface.
	answer, err = healthpb.NewHealthClient(pool).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING || err != nil {
		t.Errorf("on the pool: %v, %v", answer.GetStatus(), err)
	}
}

// A program that does not look at the error of a constructor has a nil factory.
func TestAFactoryThatWasNotMadeFailsEveryCall(t *testing.T) {
	for name, f := range map[string]*grpcpool.Factory{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			const text = "grpcpool: the Factory is nil or empty; make one with NewFactory"
			_, err := f.NewConnection(t.Context())
			wantNotOK(t, err)
			wantError(t, err, text)
			err = f.ConnectionOk(t.Context(), nil)
			wantNotOK(t, err)
			wantError(t, err, text)
			wantError(t, f.Reload(t.Context()), text)
			if info := f.Identity(); info.Generation != 0 || f.Target() != "" || f.Close() != nil {
				t.Errorf("%+v, %q, %v", info, f.Target(), f.Close())
			}
			pool := shared.New(f, time.Minute)
			_, err = pool.Get(t.Context())
			if err == nil {
				t.Error("a pool of it lends a channel")
			}
			if err := pool.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
