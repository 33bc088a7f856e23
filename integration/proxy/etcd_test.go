//go:build unix

package proxy_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/integration/internal/realserver"
)

func startEtcd(t *testing.T, streams int) (*realserver.Server, *running) {
	t.Helper()
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	etcd := realserver.StartEtcd(t, realserver.Config{Certs: certs, MaxStreams: streams})
	return etcd, startProxy(t, certs, etcd.Addr)
}

func TestEtcdServesWatchesLeasesAndLargeValuesThroughTheProxy(t *testing.T) {
	_, p := startEtcd(t, 8)
	cc := p.client()
	kv, ctx := pb.NewKVClient(cc), within(t, 2*soon)

	watches := make([]pb.Watch_WatchClient, 20) // more than one connection carries
	for i := range watches {
		watches[i] = watchKey(ctx, t, cc, "big")
	}
	lease, err := pb.NewLeaseClient(cc).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	if err != nil {
		t.Fatal(err)
	}
	keep, err := pb.NewLeaseClient(cc).LeaseKeepAlive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := keep.Send(&pb.LeaseKeepAliveRequest{ID: lease.GetID()}); err != nil {
			t.Fatal(err)
		}
		if m, err := keep.Recv(); err != nil || m.GetTTL() != 60 {
			t.Fatalf("keeping the lease: %v, %v", m, err)
		}
	}
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("big"), Value: value, Lease: lease.GetID()}); err != nil {
		t.Fatal(err)
	}
	answer, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("big")})
	if err != nil || len(answer.GetKvs()) != 1 || !bytes.Equal(answer.GetKvs()[0].GetValue(), value) {
		t.Fatalf("the value came back as %d keys, %v", len(answer.GetKvs()), err)
	}
	for _, w := range watches {
		if m, err := w.Recv(); err != nil || len(m.GetEvents()) != 1 || !bytes.Equal(m.GetEvents()[0].GetKv().GetValue(), value) {
			t.Fatalf("the watch saw %d events, %v", len(m.GetEvents()), err)
		}
	}
	if _, err := pb.NewLeaseClient(cc).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.GetID()}); err != nil {
		t.Fatal(err)
	}
	for _, w := range watches {
		if m, err := w.Recv(); err != nil || len(m.GetEvents()) != 1 || m.GetEvents()[0].GetType().String() != "DELETE" {
			t.Fatalf("the watch saw %v, %v, want the key's end with its lease", m.GetEvents(), err)
		}
	}
}

func watchKey(ctx context.Context, t *testing.T, cc grpc.ClientConnInterface, key string) pb.Watch_WatchClient {
	t.Helper()
	w, err := pb.NewWatchClient(cc).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)},
	}}); err != nil {
		t.Fatal(err)
	}
	if m, err := w.Recv(); err != nil || !m.GetCreated() {
		t.Fatalf("the watch began with %v, %v", m, err)
	}
	return w
}

func TestAServerKilledUnderTheProxyIsExplainedAndItsReturnIsSeen(t *testing.T) {
	etcd, p := startEtcd(t, 100)
	cc := p.client()
	kv, ctx := pb.NewKVClient(cc), within(t, 3*soon)
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	watches := make([]pb.Watch_WatchClient, 5)
	for i := range watches {
		watches[i] = watchKey(ctx, t, cc, "a")
	}
	etcd.Kill() // SIGKILL
	for _, w := range watches {
		if _, err := w.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "grpcpool proxy: the connection to the server was lost: ") {
			t.Errorf("a watch ended with %v, want UNAVAILABLE and why", err)
		}
	}
	// The kernel may close a connection before the listener: the dial that follows then is
	// still accepted, and reset.
	eventually(t, "calls are told that the server is down", func() bool {
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("a call while the server is down: %v, want UNAVAILABLE and why", err)
		}
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	etcd.Start()
	back := time.Now()
	eventually(t, "calls succeed again", func() bool {
		answer, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		return err == nil && string(answer.GetKvs()[0].GetValue()) == "1"
	})
	t.Logf("the first call succeeded %v after the server was back", time.Since(back))
}
