package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/integration/internal/relay"
	"github.com/davidwartell/go-grpcpool/scale"
	"github.com/davidwartell/go-grpcpool/shared"
)

func put(ctx context.Context, cc grpc.ClientConnInterface, key, value string) error {
	_, err := pb.NewKVClient(cc).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	return err
}

// get returns the value of key, "" if there is none.
func get(ctx context.Context, cc grpc.ClientConnInterface, key string) (string, error) {
	answer, err := pb.NewKVClient(cc).Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil || len(answer.GetKvs()) == 0 {
		return "", err
	}
	return string(answer.GetKvs()[0].GetValue()), nil
}

// watch begins to watch the keys that start with prefix from the given revision
// on, 0 for now, and returns once etcd has said that it does.
func watch(ctx context.Context, cc grpc.ClientConnInterface, prefix string, from int64, opts ...grpc.CallOption) (pb.Watch_WatchClient, error) {
	stream, err := pb.NewWatchClient(cc).Watch(ctx, opts...)
	if err != nil {
		return nil, err
	}
	end := []byte(prefix)
	end[len(end)-1]++ // the first key after all that start with prefix
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: end, StartRevision: from},
	}})
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the stream has ended, Recv says why
		return nil, err
	}
	answer, err := stream.Recv()
	if err == nil && !answer.GetCreated() {
		err = fmt.Errorf("the first answer to a watch is not its creation: %v", answer)
	}
	return stream, err
}

// nextEvents returns what the watch saw next.
func nextEvents(stream pb.Watch_WatchClient) ([]*mvccpb.Event, error) {
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if len(answer.GetEvents()) > 0 {
			return answer.GetEvents(), nil
		}
	}
}

// keepAlive begins a stream of keep-alives and returns once etcd has answered the
// first. Unlike a watch, etcd ends it when the client has no more to say.
func keepAlive(ctx context.Context, cc grpc.ClientConnInterface) (pb.Lease_LeaseKeepAliveClient, error) {
	stream, err := pb.NewLeaseClient(cc).LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pb.LeaseKeepAliveRequest{ID: 1}) // etcd answers for unknown leases too
	if err != nil && !errors.Is(err, io.EOF) {          // io.EOF: the stream has ended, Recv says why
		return nil, err
	}
	_, err = stream.Recv()
	return stream, err
}

func endKeepAlive(stream pb.Lease_LeaseKeepAliveClient) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	answer, err := stream.Recv()
	switch {
	case err == nil:
		return fmt.Errorf("after its end a keep-alive got %v", answer)
	case !errors.Is(err, io.EOF):
		return err
	default:
		return nil
	}
}

func wantEvent(t *testing.T, stream pb.Watch_WatchClient, key, value string) {
	t.Helper()
	events, err := nextEvents(stream)
	if err != nil {
		t.Fatalf("watching: %v", err)
	}
	kv := events[0].GetKv()
	if len(events) != 1 || string(kv.GetKey()) != key || string(kv.GetValue()) != value {
		t.Fatalf("the watch saw %v, want one event with key %q and value %q", events, key, value)
	}
}

// putGetWatch does one of each on cc.
func putGetWatch(t *testing.T, cc grpc.ClientConnInterface, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	stream, err := watch(ctx, cc, key, 0)
	if err != nil {
		t.Fatalf("beginning to watch: %v", err)
	}
	if err := put(ctx, cc, key, "value"); err != nil {
		t.Fatalf("putting: %v", err)
	}
	wantEvent(t, stream, key, "value")
	if got, err := get(ctx, cc, key); err != nil || got != "value" {
		t.Fatalf("getting: %q and error %v, want %q", got, err, "value")
	}
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Fatalf("a watch that was cancelled ended with %v, want the code Canceled", err)
	}
}

func TestPutGetAndWatchThroughALease(t *testing.T) {
	certs := localhost(t)
	pool := newPool(t, mutualTLS(t, certs, startEtcd(t, certs).addr))
	conn, err := pool.Get(within(t, soon))
	if err != nil {
		t.Fatal(err)
	}
	putGetWatch(t, conn.Connection(), "through-a-lease")
	wantLeases(t, pool, 1)
	conn.Return()
	wantLeases(t, pool, 0)
	if conn.Connection() != nil {
		t.Error("a lease that was returned still has a connection")
	}
}

func TestPutGetAndWatchOnThePoolItself(t *testing.T) {
	certs := localhost(t)
	pool := newPool(t, mutualTLS(t, certs, startEtcd(t, certs).addr))
	putGetWatch(t, pool, "on-the-pool")
	awaitNoLeases(t, pool)
	if s := pool.Stats(); s.Dials != 1 || s.Channels != 1 {
		t.Errorf("%d dials and %d channels, want one each: %+v", s.Dials, s.Channels, s)
	}
}

func TestManyCallersShareOneConnectionToEtcd(t *testing.T) {
	const callers, calls = 50, 20
	certs := localhost(t)
	etcd := relay.Start(t, startEtcd(t, certs).addr)
	pool := newPool(t, mutualTLS(t, certs, etcd.Addr))
	ctx := within(t, time.Minute)
	errs := make(chan error, callers)
	for i := range callers {
		go func() { errs <- putAndGetBack(ctx, pool, fmt.Sprintf("caller-%d", i), calls) }()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	wantLeases(t, pool, 0)
	if n := etcd.Accepted(); n != 1 {
		t.Errorf("%d callers opened %d connections, want 1", callers, n)
	}
}

// putAndGetBack puts so many values, by turns on the pool and on a lease of it,
// and reads each back by the other way.
func putAndGetBack(ctx context.Context, pool *shared.Pool, key string, times int) error {
	for i := range times {
		conn, err := pool.Get(ctx)
		if err != nil {
			return err
		}
		ways := []grpc.ClientConnInterface{pool, conn.Connection()}
		value := strconv.Itoa(i)
		if err = put(ctx, ways[i%2], key, value); err != nil {
			return err
		}
		got, err := get(ctx, ways[(i+1)%2], key)
		conn.Return()
		if err != nil {
			return err
		}
		if got != value {
			return fmt.Errorf("got %q back from %q, want %q", got, key, value)
		}
	}
	return nil
}

func TestAStreamHoldsItsLeaseAsLongAsItLives(t *testing.T) {
	certs := localhost(t)
	pool := newPool(t, mutualTLS(t, certs, startEtcd(t, certs).addr))
	ctx := within(t, soon)
	watching, stopWatching := context.WithCancel(ctx)

	watched, err := watch(watching, pool, "key", 0)
	if err != nil {
		t.Fatal(err)
	}
	wantLeases(t, pool, 1)
	kept, err := keepAlive(ctx, pool)
	if err != nil {
		t.Fatal(err)
	}
	wantLeases(t, pool, 2)
	if err := put(ctx, pool, "key", "seen"); err != nil {
		t.Fatal(err)
	}
	wantEvent(t, watched, "key", "seen")
	wantLeases(t, pool, 2)

	if err := endKeepAlive(kept); err != nil { // the server ends this one
		t.Fatal(err)
	}
	wantLeases(t, pool, 1)

	stopWatching() // the client ends this one and never looks at it again
	awaitNoLeases(t, pool)
}

func TestAQuietWatchIsTestedInTheBackgroundAndGoesOn(t *testing.T) {
	certs := localhost(t)
	unwatched := grpcpool.WithDialOptions(scale.WithProbeInterval(0)) // else the pool leaves that to the channel
	pool := newPool(t, mutualTLS(t, certs, startEtcd(t, certs).addr, unwatched), shared.WithTestInterval(time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	stream, err := watch(ctx, pool, "quiet", 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pool has tested the connection three times", func() bool { return pool.Stats().Tests >= 3 })
	if err := put(ctx, pool, "quiet", "seen"); err != nil {
		t.Fatal(err)
	}
	wantEvent(t, stream, "quiet", "seen")
	if s := pool.Stats(); s.TestsFailed != 0 || s.Dials != 1 {
		t.Errorf("%d tests failed and %d dials, want none and one: %+v", s.TestsFailed, s.Dials, s)
	}
	cancel()
	awaitNoLeases(t, pool)
}

// TestMain looks for goroutines when everything has ended. This test looks while
// etcd runs on, so that it is Close that ended what the pool began.
func TestNothingIsLeftOfAClosedPool(t *testing.T) {
	certs := localhost(t)
	etcd := relay.Start(t, startEtcd(t, certs).addr)
	before := goleak.IgnoreCurrent()

	pool := shared.New(mutualTLS(t, certs, etcd.Addr), time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := putAndGetBack(ctx, pool, "key", 4); err != nil {
		t.Fatal(err)
	}
	stream, err := watch(ctx, pool, "key", 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := etcd.Open(); n != 1 {
		t.Errorf("%d connections are open, want 1", n)
	}
	cancel()
	if events, err := nextEvents(stream); err == nil {
		t.Fatalf("a watch that was cancelled saw %v", events)
	}
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is closed", func() bool { return etcd.Open() == 0 })
	goleak.VerifyNone(t, before)
	if s := pool.Stats(); s.Leases != 0 || s.Channels != 0 || s.State != shared.StateClosed {
		t.Errorf("a closed pool has %+v", s)
	}
}

// awaitNoLeases is for streams that were cancelled: grpc-go ends those on a
// goroutine of its own, perhaps just after Recv has returned.
func awaitNoLeases(t *testing.T, pool *shared.Pool) {
	t.Helper()
	eventually(t, "no lease is out", func() bool { return pool.Stats().Leases == 0 })
}

func wantLeases(t *testing.T, pool *shared.Pool, want int) {
	t.Helper()
	if got := pool.Stats().Leases; got != want {
		t.Fatalf("%d leases are out, want %d", got, want)
	}
}
