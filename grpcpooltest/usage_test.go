package grpcpooltest_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

// The tests of this file are meant to be copied: each shows how a program tests what it
// does in an outage of one kind. Times are virtual, so none takes longer than its
// handshakes. In the place of grpc.testing.TestService, register the program's service
// by WithServices.

// newPool makes a pool that reaches its server by opts.
func newPool(t *testing.T, server *grpcpooltest.Server, opts ...grpc.DialOption) *shared.Pool {
	t.Helper()
	factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(),
		grpcpool.WithDialOptions(server.DialOptions(opts...)...))
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, time.Minute)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// A call that waits for ready outlasts a restart of its server, and goes through within
// a second of its return.
func TestACallThroughAPoolSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		client := testpb.NewTestServiceClient(newPool(t, server))
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}

		server.Stop()
		synctest.Wait() // the pool knows it, too
		time.AfterFunc(time.Minute, server.Start)

		begun := time.Now()
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("the call took %v, want a minute and up to a second", took)
		}
	})
}

// In a blackhole no packet says that the server is gone. A call without a deadline must
// not hang all the same.
func TestACallInABlackholeFailsSoonAndTheNextOneAfterItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		link := grpcpooltest.NewLink(server.Dial)
		client := testpb.NewTestServiceClient(newPool(t, server, link.DialOption()))
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}

		link.Blackhole()
		begun := time.Now()
		_, err := client.EmptyCall(t.Context(), &testpb.Empty{})
		if took := time.Since(begun); status.Code(err) != codes.Unavailable || took > 4*time.Second {
			t.Errorf("after %v the call ended with %v, want Unavailable within 4 s", took, err)
		}

		link.Heal()
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}, grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
	})
}

// A server that allows 10 calls on a connection gets the connections that 35 calls need,
// and none of the calls waits for another.
func TestCallsBeyondTheStreamLimitGetMoreConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, calls = 10, 35
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithStreamLimit(limit),
			grpcpooltest.WithEmptyCall(func(ctx context.Context) error {
				select {
				case <-time.After(time.Minute):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}))
		cc, err := scale.NewClient(server.Target(), server.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()

		var running sync.WaitGroup
		begun := time.Now()
		for range calls {
			running.Go(func() {
				if _, err := testpb.NewTestServiceClient(cc).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		if took := time.Since(begun); took > time.Minute+time.Second {
			t.Errorf("the calls took %v: some waited for others", took)
		}
		if got := server.Counts(); got.MostCalls > limit || got.Open < 4 {
			t.Errorf("%+v, want at most %d calls on each of 4 connections or more", got, limit)
		}
	})
}

// The client's certificate is renewed on disk, as cert-manager does it. The pool shows
// the new one without failing a call.
func TestAPoolShowsARenewedCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shown atomic.Value // the name in the client's certificate
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithMutualTLS(),
			grpcpooltest.WithEmptyCall(func(ctx context.Context) error {
				from, _ := peer.FromContext(ctx)
				shown.Store(from.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].Subject.CommonName)
				return nil
			}))
		dir := t.TempDir()
		write := func(certs *grpcpooltest.Certs) grpcpooltest.Files {
			t.Helper()
			files, err := certs.WriteFiles(dir)
			if err != nil {
				t.Fatal(err)
			}
			return files
		}
		files := write(server.Certs())
		factory, err := grpcpool.NewMutualTLSFactoryFromFiles(files.CA, files.Cert, files.Key, server.Target(),
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		pool := shared.New(factory, 0)
		defer pool.Close()
		client := testpb.NewTestServiceClient(pool)
		wantShown := func(want string) {
			t.Helper()
			if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
			if got := shown.Load(); got != want {
				t.Errorf("the client shows %v, want %v", got, want)
			}
		}
		wantShown("client")

		renewed, err := server.Certs().Renew(grpcpooltest.WithClientCert(grpcpooltest.CertRequest{CommonName: "renewed"}))
		if err != nil {
			t.Fatal(err)
		}
		write(renewed)
		for range 60 {
			time.Sleep(time.Second)
			if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
				t.Fatal(err)
			}
		}
		wantShown("renewed")
	})
}
