package otelpool_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

const (
	callers = 100 // of each client
	forLong = 22 * time.Second
	outage  = 10 * time.Second
)

type callFunc func(context.Context, grpc.ClientConnInterface) error

func unaryCall(ctx context.Context, cc grpc.ClientConnInterface) error {
	_, err := testpb.NewTestServiceClient(cc).EmptyCall(ctx, &testpb.Empty{})
	return err
}

// streamingCall sends two messages, waits for an answer to each, and reads to the end.
func streamingCall(ctx context.Context, cc grpc.ClientConnInterface) error {
	stream, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range 2 {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
		time.Sleep(15 * time.Millisecond)
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// takeAMoment is what the server does in a unary call.
func takeAMoment(ctx context.Context) error {
	select {
	case <-time.After(30 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// crowd has callers call all of the clients, each about once a second.
func crowd(t *testing.T, call callFunc, timeout time.Duration, clients ...*watched) {
	t.Helper()
	end := time.Now().Add(forLong)
	var all sync.WaitGroup
	for i := range callers {
		for _, w := range clients {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 2 * time.Millisecond) // not all at once
				for time.Now().Before(end) {
					ctx, cancel := context.WithTimeout(t.Context(), timeout)
					w.note(call(ctx, w))
					cancel()
					time.Sleep(time.Second)
				}
			})
		}
	}
	for _, w := range clients {
		if w.pool != nil {
			all.Go(func() { w.borrowUntil(t.Context(), end) })
		}
	}
	all.Wait()
	synctest.Wait() // for those who count
}

// borrowUntil borrows the channel now and then, so that the pool tests it, and finds out that
// there is no connection, while calls are made.
func (w *watched) borrowUntil(ctx context.Context, end time.Time) {
	for time.Now().Before(end) {
		if conn, err := w.pool.Get(ctx); err == nil {
			conn.Return()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Who reads a dashboard in an outage must not see fewer failures there than callers do. A
// plain channel beside the pool shows that the figures can agree.
func TestAllWhoCountTheCallsOfAnOutageAgree(t *testing.T) {
	stopped := func(server *grpcpooltest.Server, _ *grpcpooltest.Link) (end func()) {
		server.Stop()
		return server.Start
	}
	blackhole := func(_ *grpcpooltest.Server, link *grpcpooltest.Link) (end func()) {
		link.Blackhole()
		return link.Heal
	}
	const later = 4*time.Second + time.Microsecond // no call begins then
	for name, test := range map[string]struct {
		call    callFunc
		timeout time.Duration // of each call
		begin   func(*grpcpooltest.Server, *grpcpooltest.Link) (end func())
		after   time.Duration // when the outage begins
		want    string        // how many calls end
	}{
		"calls":                      {unaryCall, 3 * time.Second, stopped, later, "UNAVAILABLE"},
		"streams":                    {streamingCall, 3 * time.Second, stopped, later, "UNAVAILABLE"},
		"from the first call on":     {unaryCall, 3 * time.Second, stopped, 0, "UNAVAILABLE"},
		"from the first stream on":   {streamingCall, 3 * time.Second, stopped, 0, "UNAVAILABLE"},
		"calls behind a blackhole":   {unaryCall, 200 * time.Millisecond, blackhole, later, "DEADLINE_EXCEEDED"},
		"streams behind a blackhole": {streamingCall, 200 * time.Millisecond, blackhole, later, "DEADLINE_EXCEEDED"},
		"a blackhole from the start": {unaryCall, 200 * time.Millisecond, blackhole, 0, "DEADLINE_EXCEEDED"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithEmptyCall(takeAMoment))
				link := grpcpooltest.NewLink(server.Dial)
				pool, plain := newWatchedPool(t, server, link.DialOption()), newWatchedChannel(t, server, link.DialOption())
				begin := func() { time.AfterFunc(outage, test.begin(server, link)) }
				if test.after == 0 {
					begin()
				} else {
					time.AfterFunc(test.after, begin)
				}
				crowd(t, test.call, test.timeout, pool, plain)
				pool.shutDown(t)
				plain.shutDown(t)
				for who, w := range map[string]*watched{"the pool": pool, "the plain channel": plain} {
					w.want(t, who)
					if w.seen[test.want] < callers || w.seen["OK"] < callers {
						t.Errorf("%s: want many calls that end OK, and many %s: %v", who, test.want, w.seen)
					}
				}
			})
		})
	}
}
