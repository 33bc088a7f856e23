package h2test_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/davidwartell/go-grpcpool/grpcpooltest/h2test"
)

// raw is a client that does what a test tells it, rules or no rules.
type raw struct {
	*http2.Framer

	t      *testing.T
	conn   net.Conn
	stream uint32 // the next stream's identifier
}

func dialRaw(t *testing.T, srv *h2test.Server) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	r := &raw{Framer: http2.NewFramer(conn, conn), t: t, conn: conn, stream: 1}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	r.must(r.WriteSettings())
	return r
}

func (r *raw) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// open opens a stream, with the request's end or without.
func (r *raw) open(end bool) uint32 {
	r.t.Helper()
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/a/b"}, {":authority", "x"}} {
		r.must(enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	id := r.stream
	r.stream += 2
	r.must(r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end}))
	return id
}

// await reads up to the first frame that is wanted, and returns how many DATA
// frames came before it.
func (r *raw) await(wanted func(http2.Frame) bool) (answers int) {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		r.must(err)
		if wanted(f) {
			return answers
		}
		if f.Header().Type == http2.FrameData {
			answers++
		}
	}
}

// sync returns when the server has taken all that was sent, and how many answers
// it wrote before that.
func (r *raw) sync() (answers int) {
	r.t.Helper()
	r.must(r.WritePing(false, [8]byte{1}))
	return r.await(func(f http2.Frame) bool {
		ping, ok := f.(*http2.PingFrame)
		return ok && ping.IsAck()
	})
}

// limit waits for SETTINGS that carry the limit n.
func (r *raw) limit(n uint32) {
	r.t.Helper()
	r.await(func(f http2.Frame) bool {
		s, ok := f.(*http2.SettingsFrame)
		if !ok || s.IsAck() {
			return false
		}
		got, _ := s.Value(http2.SettingMaxConcurrentStreams)
		return got == n
	})
}

func TestOnlyNewStreamsBeyondTheLimitInForceAreViolations(t *testing.T) {
	srv := start(t, h2test.WithLimit(2))
	r := dialRaw(t, srv)
	want := func(after string, violations int64) {
		t.Helper()
		r.sync()
		if got := srv.Counts().Violations; got != violations {
			t.Fatalf("after %s: %d violations, want %d", after, got, violations)
		}
	}
	r.limit(2)
	r.must(r.WriteSettingsAck())
	r.open(false)
	second := r.open(false)
	want("two streams at limit 2", 0)
	r.open(false)
	want("a third", 1)
	r.must(r.WriteRSTStream(second, http2.ErrCodeCancel))
	srv.SetLimit(3)
	r.limit(3)
	r.open(false)
	want("a third at limit 3, not acknowledged", 1)
	srv.SetLimit(1)
	r.limit(1)
	r.must(r.WriteSettingsAck()) // of the 3
	want("a limit below what is open", 1)
	r.must(r.WriteSettingsAck())
	want("its acknowledgement", 1)
	r.open(false)
	want("a fourth stream", 2)
	srv.SetLimit(h2test.NoLimit)
	r.limit(math.MaxUint32)
	for range 10 {
		r.open(false)
	}
	want("ten more without a limit", 2)
	if got := srv.Counts(); got.MaxStreams != 14 || got.Calls != 15 {
		t.Errorf("counts %+v, want 14 streams at most and 15 calls", got)
	}
}

func TestAnswersKeepToTheClientsWindow(t *testing.T) {
	srv := start(t)
	r := dialRaw(t, srv)
	const fit = 65535 / 5
	answers := 0
	for i := range fit + 1 {
		r.open(true)
		if i%1000 == 0 { // read now and then, as a client would
			answers += r.sync()
		}
	}
	if answers += r.sync(); answers != fit {
		t.Fatalf("%d answers in the first window, want %d", answers, fit)
	}
	r.must(r.WriteWindowUpdate(0, 5))
	if answers := r.sync(); answers != 1 {
		t.Errorf("%d answers in a window of 5 bytes, want 1", answers)
	}
}

func TestFaultsLookLikeThisOnTheWire(t *testing.T) {
	for _, tc := range []struct {
		fault h2test.Fault
		want  []http2.FrameType
	}{
		{h2test.CloseAtOnce, []http2.FrameType{http2.FrameSettings}},
		{h2test.GoAwayAtOnce, []http2.FrameType{http2.FrameSettings, http2.FrameGoAway}},
	} {
		t.Run(tc.fault.String(), func(t *testing.T) {
			r := dialRaw(t, start(t, h2test.WithLimit(1), h2test.WithFault(tc.fault)))
			var got []http2.FrameType
			for {
				f, err := r.ReadFrame()
				if errors.Is(err, io.EOF) {
					break
				}
				r.must(err)
				if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() {
					continue // if it was read in time
				}
				got = append(got, f.Header().Type)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
		})
	}
}

// A flood, or the answer to a call, shows its frame a hundred times or breaks off
// what went before; a client that reads on sees as many as it likes.
func TestHostileFaultsLookLikeThisOnTheWire(t *testing.T) {
	for fault, want := range map[h2test.Fault]struct {
		frame http2.FrameType
		times int
	}{
		h2test.PingFlood:         {http2.FramePing, 1000},
		h2test.SettingsFlood:     {http2.FrameSettings, 1000},
		h2test.WindowFlood:       {http2.FrameWindowUpdate, 1000},
		h2test.ResetFlood:        {http2.FrameRSTStream, 1000},
		h2test.EmptyDataFlood:    {http2.FrameData, 1000},
		h2test.ResetsCalls:       {http2.FrameRSTStream, 1},
		h2test.HugeHeaders:       {http2.FrameContinuation, 10},
		h2test.ContinuationFlood: {http2.FrameContinuation, 1000},
		h2test.EndlessData:       {http2.FrameData, 1000},
		h2test.PushPromise:       {http2.FramePushPromise, 1},
	} {
		t.Run(fault.String(), func(t *testing.T) {
			r := dialRaw(t, start(t, h2test.WithFault(fault)))
			r.open(true)
			for range want.times {
				r.await(func(f http2.Frame) bool { return f.Header().Type == want.frame })
			}
		})
	}
}

func TestAHostileServerDoesNotReadOrOpensNoWindow(t *testing.T) {
	r := dialRaw(t, start(t, h2test.WithFault(h2test.ZeroWindow)))
	r.await(func(f http2.Frame) bool {
		s, ok := f.(*http2.SettingsFrame)
		if !ok || s.IsAck() {
			return false
		}
		window, told := s.Value(http2.SettingInitialWindowSize)
		return told && window == 0
	})
	srv := start(t, h2test.WithFault(h2test.NeverReads))
	r = dialRaw(t, srv)
	r.limit(0) // the zero Value of one that is not named
	r.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for sent := 0; ; sent += 1 << 20 {
		if _, err := r.conn.Write(make([]byte, 1<<20)); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if sent > 64<<20 {
			t.Fatal("64 MiB were taken by a server that does not read")
		}
	}
}

func TestEveryFaultHasANameAndEndsWithItsServer(t *testing.T) {
	names := make(map[string]bool)
	for _, fault := range h2test.Faults() {
		names[fault.String()] = true
		srv := start(t, h2test.WithFault(fault))
		conn, err := net.Dial("tcp", srv.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(http2.ClientPreface))
		srv.Close() // waits for what the fault has begun
		conn.Close()
	}
	if len(names) != len(h2test.Faults()) || names["unknown fault"] {
		t.Errorf("names %v of %d faults", names, len(h2test.Faults()))
	}
}

func TestWhatIsNotHTTP2IsClosed(t *testing.T) {
	srv := start(t)
	conn, err := net.Dial("tcp", srv.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}
