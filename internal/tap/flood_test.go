package tap_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// The frames of every flood, and what they may come to.
func TestFramesThatNothingExplainsAreAFlood(t *testing.T) {
	ping := func(fr *http2.Framer) { fr.WritePing(false, [8]byte{}) }
	trailers := func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	}
	for name, tc := range map[string]struct {
		each  func(*http2.Framer) // one round
		sends int                 // bytes in it
		every time.Duration       // a round
		flood bool
	}{
		"PINGs, all at once":            {ping, 0, 0, true},
		"PINGs, answered":               {ping, 17, 0, true},
		"PINGs, 1,100 a second":         {ping, 17, time.Second / 1100, true},
		"PINGs, 900 a second":           {ping, 17, time.Second / 900, false},
		"SETTINGS":                      {func(fr *http2.Framer) { fr.WriteSettings() }, 9, 0, true},
		"acknowledgements of SETTINGS":  {func(fr *http2.Framer) { fr.WriteSettingsAck() }, 0, 0, true},
		"acknowledgements of PINGs":     {func(fr *http2.Framer) { fr.WritePing(true, [8]byte{}) }, 0, 0, true},
		"our PINGs, acknowledged":       {func(fr *http2.Framer) { fr.WritePing(true, [8]byte{}) }, 17, 0, false},
		"empty DATA":                    {func(fr *http2.Framer) { fr.WriteData(1, false, nil) }, 0, 0, true},
		"DATA of a byte":                {func(fr *http2.Framer) { fr.WriteData(1, false, []byte{1}) }, 0, 0, false},
		"RST_STREAM":                    {func(fr *http2.Framer) { fr.WriteRSTStream(1, 0) }, 0, 0, true},
		"WINDOW_UPDATE":                 {func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1) }, 0, 0, true},
		"HEADERS":                       {trailers, 0, 0, true},
		"CONTINUATION":                  {func(fr *http2.Framer) { fr.WriteContinuation(1, false, []byte{0x88}) }, 0, 0, true},
		"unknown frames":                {func(fr *http2.Framer) { fr.WriteRawFrame(0xf0, 0, 1, nil) }, 0, 0, true},
		"the smallest unary call":       {func(fr *http2.Framer) { trailers(fr); fr.WriteData(1, false, make([]byte, 5)); trailers(fr) }, 28, 0, false},
		"calls that fail":               {trailers, 28, 0, false},
		"windows for the smallest DATA": {func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1); fr.WriteWindowUpdate(1, 1) }, 15, 0, false},
		"windows for 16 KiB of DATA":    {func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 1); fr.WriteWindowUpdate(1, 1) }, 16393, 0, false},
		"a PING for each DATA we send":  {func(fr *http2.Framer) { ping(fr); fr.WriteWindowUpdate(0, 1); fr.WriteWindowUpdate(1, 1) }, 15 + 17, 0, false},
		"a PING for each DATA we get":   {func(fr *http2.Framer) { fr.WriteData(1, false, []byte{1}); ping(fr) }, 17 + 13, 0, false},
		"100 PINGs for each DATA we get": {func(fr *http2.Framer) {
			fr.WriteData(1, false, []byte{1})
			for range 100 {
				ping(fr)
			}
		}, 1700, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tap.New(tap.Events{})
				var peer sink
				conn := s.Wrap(&peer, nil)
				fr := http2.NewFramer(&peer.in, nil)
				fr.AllowIllegalWrites = true
				fr.WriteSettings()
				sent, read := make([]byte, tc.sends), make([]byte, 1<<10)
				most := 30_000
				if tc.sends > 1<<14 {
					most = 12_000 // the race detector takes long over every byte
				}
				var err error
				for rounds := 0; rounds < most && err == nil; rounds++ {
					tc.each(fr)
					conn.Write(sent)
					for peer.in.Len() > 0 && err == nil {
						_, err = conn.Read(read)
					}
					time.Sleep(tc.every)
				}
				if errors.Is(err, tap.ErrFlood) != tc.flood || errors.Is(s.Cause(), tap.ErrFlood) != tc.flood {
					t.Errorf("the read ended with %v, Cause() = %v", err, s.Cause())
				}
			})
		})
	}
}

// sink is a script that takes what is written.
type sink struct{ script }

func (*sink) Write(b []byte) (int, error) { return len(b), nil }

func TestAfterAnIdleHourABurstIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tap.New(tap.Events{})
		var peer sink
		conn := s.Wrap(&peer, nil)
		fr := http2.NewFramer(&peer.in, nil)
		fr.WriteSettings()
		for range 5 {
			time.Sleep(time.Hour)
			for range 9000 {
				fr.WriteWindowUpdate(0, 1)
			}
			for peer.in.Len() > 0 {
				if _, err := conn.Read(make([]byte, 1<<10)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// On real sockets, with a call under way: its error names the flood.
func TestAFloodEndsTheConnectionAndIsNamed(t *testing.T) {
	for _, fault := range []h2test.Fault{
		h2test.PingFlood, h2test.SettingsFlood, h2test.WindowFlood, h2test.ResetFlood,
	} {
		t.Run(fault.String(), func(t *testing.T) {
			for !floodIsNamed(t, fault) {
			}
		})
	}
}

// floodIsNamed reports false for a call that told nothing: since 1.84 grpc-go ends a
// call with a bare io.EOF if the connection that it repeats the call on is lost before
// it has written the call's message.
func floodIsNamed(t *testing.T, fault h2test.Fault) bool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived := make(chan struct{}, 10)
	srv := h2test.Start(l, h2test.WithFault(fault), h2test.WithDelay(time.Hour),
		h2test.WithOnCall(func(h2test.CallInfo) { arrived <- struct{}{} }))
	defer srv.Close()
	s := tap.New(tap.Events{})
	cc := dial(t, l.Addr(), grpc.WithCredentialsBundle(tap.Bundle(insecure.NewCredentials(), nil, s)))
	_, err = healthpb.NewHealthClient(cc).Check(testContext(t), &healthpb.HealthCheckRequest{})
	if errors.Is(err, io.EOF) {
		return false
	}
	if status.Code(err) != codes.Unavailable {
		t.Fatalf("the call ended with %v", err)
	}
	if len(arrived) > 0 && !strings.Contains(err.Error(), "floods the connection") {
		t.Errorf("the error of a call that was under way is %v", err)
	}
	if !errors.Is(s.Cause(), tap.ErrFlood) && s.Cause() != nil { // nil: another connection has begun
		t.Errorf("Cause() = %v", s.Cause())
	}
	return true
}

// What a busy client and a real server exchange is no flood: small calls, an
// upload, both ways at once.
func TestWorkIsNoFlood(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	addr, err := net.ResolveTCPAddr("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	s := tap.New(tap.Events{})
	cc := dial(t, addr, grpc.WithCredentialsBundle(tap.Bundle(insecure.NewCredentials(), nil, s)))
	client := testpb.NewTestServiceClient(cc)
	ctx := testContext(t)
	var work sync.WaitGroup
	work.Go(func() { unaryCalls(ctx, t, client, 1000) })
	work.Go(func() { upload(ctx, t, client, 40000, 0) })
	work.Go(func() { upload(ctx, t, client, 64, 1<<20) })
	work.Go(func() { pingPong(ctx, t, client, 1000) })
	work.Wait()
	if state := cc.GetState(); state != connectivity.Ready || s.Cause() != nil || server.Accepted() != 1 {
		t.Errorf("%v after %d connections: %v", state, server.Accepted(), s.Cause())
	}
}

func unaryCalls(ctx context.Context, t *testing.T, client testpb.TestServiceClient, n int) {
	for range n {
		if _, err := client.EmptyCall(ctx, &testpb.Empty{}); err != nil {
			t.Error(err)
			return
		}
	}
}

// upload sends n messages of size bytes.
func upload(ctx context.Context, t *testing.T, client testpb.TestServiceClient, n, size int) {
	stream, err := client.StreamingInputCall(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	message := &testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, size)}}
	for range n {
		if err := stream.Send(message); err != nil {
			break // CloseAndRecv says why
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func pingPong(ctx context.Context, t *testing.T, client testpb.TestServiceClient, n int) {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	for range n {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Error(err)
			return
		}
		if _, err := stream.Recv(); err != nil {
			t.Error(err)
			return
		}
	}
	_ = stream.CloseSend()
	_, _ = stream.Recv()
}
