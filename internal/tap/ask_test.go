package tap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// written is a connection that keeps what is written to it.
type written struct {
	script

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(b)
}

// asTransport is a stream of frames as a client's transport sends them, header blocks
// in several frames among them.
func asTransport(rnd *rand.Rand, n int) []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	_ = fr.WriteSettingsAck()
	for id := uint32(1); id < uint32(2*n); id += 2 {
		ended := rnd.IntN(2) == 0
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, rnd.IntN(40)), EndHeaders: ended})
		for !ended {
			ended = rnd.IntN(2) == 0
			_ = fr.WriteContinuation(id, ended, make([]byte, rnd.IntN(40)))
		}
		_ = fr.WriteData(id, true, make([]byte, rnd.IntN(300)))
		_ = fr.WriteWindowUpdate(0, 1)
	}
	return b.Bytes()
}

// frames reads what was sent as text, without the SETTINGS that are empty.
func frames(t *testing.T, stream []byte) (all []string, questions int) {
	t.Helper()
	r := bytes.NewReader(stream)
	if _, err := io.ReadFull(r, make([]byte, len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(nil, r)
	for {
		f, err := fr.ReadFrame() // an error, if a header block is interrupted
		if errors.Is(err, io.EOF) {
			return all, questions
		} else if err != nil {
			t.Fatalf("after %d frames: %v", len(all), err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() && s.NumSettings() == 0 {
			questions++
			continue
		}
		all = append(all, f.Header().String())
	}
}

func TestAQuestionIsAskedBetweenTwoFramesWhateverThePieces(t *testing.T) {
	for range 200 {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		stream := asTransport(rnd, 5)
		var peer written
		s := tap.New(tap.Events{})
		conn := s.Wrap(&peer, nil)
		var asked []*tap.Question
		for rest := stream; len(rest) > 0; {
			asked = append(asked, s.Ask())
			n := min(1+rnd.IntN(60), len(rest))
			if _, err := conn.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		_ = conn.Close() // waits for what is being asked
		want, _ := frames(t, stream)
		got, questions := frames(t, peer.out.Bytes())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d (-transport +sent):\n%s", seed, diff)
		}
		if questions == 0 || s.Opened() != 5 || s.Sent() != int64(peer.out.Len()) {
			t.Fatalf("seed %d: %d questions, %d streams opened, %d bytes of %d sent", seed, questions, s.Opened(), s.Sent(), peer.out.Len())
		}
		fr := http2.NewFramer(&peer.in, nil)
		_ = fr.WriteSettings(limit(1))
		for range questions { // one acknowledgement is for the transport's own SETTINGS
			_ = fr.WriteSettingsAck()
		}
		peer.hear(t, conn)
		last := asked[len(asked)-1]
		if closed(last.Answered()) && questions > 1 {
			t.Fatalf("seed %d: the last question is answered by the acknowledgement of the one before", seed)
		}
		_ = fr.WriteSettingsAck()
		peer.hear(t, conn)
		for i, q := range asked {
			if !closed(q.Answered()) || q.Written().IsZero() {
				t.Fatalf("seed %d: question %d of %d was written at %v and has no answer", seed, i, len(asked), q.Written())
			}
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestNothingIsAskedBeforeTheTransportHasBegun(t *testing.T) {
	var peer written
	s := tap.New(tap.Events{})
	if q := s.Ask(); closed(q.Answered()) || !q.Written().IsZero() {
		t.Error("a question without a connection was asked")
	}
	conn := s.Wrap(&peer, nil)
	q := s.Ask()
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if peer.out.String() != http2.ClientPreface || !q.Written().IsZero() {
		t.Errorf("%q was sent", peer.out.String())
	}
}

// The peer does not read: whoever asks does not wait, and Close ends what waits.
func TestAQuestionThatCannotBeWrittenHoldsNobodyUp(t *testing.T) {
	here, there := net.Pipe()
	t.Cleanup(func() { _ = there.Close() })
	s := tap.New(tap.Events{})
	conn := s.Wrap(here, nil)
	preface := asTransport(rand.New(rand.NewPCG(1, 1)), 0)
	go func() { _, _ = io.ReadFull(there, make([]byte, len(preface))) }()
	if _, err := conn.Write(preface); err != nil {
		t.Fatal(err)
	}
	q := s.Ask()
	s.Ask()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if !q.Written().IsZero() || closed(q.Answered()) {
		t.Error("a peer that does not read has answered")
	}
}

// A server of gRPC's own answers under load, with and without a buffer for writing.
func TestAServerAnswersWhileCallsAreMade(t *testing.T) {
	server := grpcpooltest.NewServer(t)
	for name, opts := range map[string][]grpc.DialOption{
		"as it comes":     nil,
		"no write buffer": {grpc.WithWriteBufferSize(0)},
		"a small buffer":  {grpc.WithWriteBufferSize(100)},
	} {
		t.Run(name, func(t *testing.T) {
			s := tap.New(tap.Events{})
			creds := tap.Credentials(insecure.NewCredentials(), s)
			cc, err := grpc.NewClient(server.Target(), append(opts, grpc.WithTransportCredentials(creds))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			stub := testpb.NewTestServiceClient(cc)
			upload := &testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 100<<10)}}
			call := func() error {
				stream, err := stub.StreamingInputCall(ctx)
				if err != nil {
					return err
				}
				for range 10 {
					if err := stream.Send(upload); err != nil {
						return err
					}
				}
				_, err = stream.CloseAndRecv()
				return err
			}
			if err := call(); err != nil {
				t.Fatal(err)
			}
			asking, stop := context.WithCancel(ctx)
			var calls sync.WaitGroup
			for range 4 {
				calls.Go(func() {
					if err := call(); err != nil {
						t.Error(err)
					}
				})
			}
			go func() { calls.Wait(); stop() }()
			for n := 0; asking.Err() == nil || n == 0; n++ {
				select {
				case <-s.Ask().Answered():
				case <-ctx.Done():
					t.Fatalf("question %d has no answer", n)
				}
			}
		})
	}
}

// held is a connection whose writes wait, once it is told to, until each is let go.
type held struct {
	script

	begun, letGo chan struct{}
}

func (h *held) Write(b []byte) (int, error) {
	if len(b) == 9 { // a question
		h.begun <- struct{}{}
		<-h.letGo
	}
	return len(b), nil
}

func TestAQuestionThatComesWhileAnotherIsWrittenIsAskedToo(t *testing.T) {
	peer := &held{begun: make(chan struct{}), letGo: make(chan struct{})}
	s := tap.New(tap.Events{})
	c := s.Wrap(peer, nil)
	if _, err := c.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	s.Ask()
	<-peer.begun
	s.Ask()
	peer.letGo <- struct{}{}
	<-peer.begun // or the test hangs here
	peer.letGo <- struct{}{}
	_ = c.Close()
}
