package tap

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// seen is what either the parser or the reference found, in order: Settings,
// Acknowledged and GoAways.
type seen []any

type Acknowledged struct{}

type Settings struct {
	Told  bool
	Limit uint32
}

func (s *seen) settings(limit uint32, told bool) {
	if !told {
		limit = 0
	}
	*s = append(*s, Settings{told, limit})
}

func (*seen) frame(frame) {}

func (*seen) windowUpdate(uint32, uint32) {}

func (s *seen) acknowledged() { *s = append(*s, Acknowledged{}) }

func (s *seen) goAway(g GoAway) { *s = append(*s, g) }

// parse feeds the stream in pieces of the given sizes, the last one over and
// over; no sizes at all means one piece.
func parse(stream []byte, sizes ...int) seen {
	var got seen
	p := parser{sink: &got}
	for len(stream) > 0 {
		n := len(stream)
		if len(sizes) > 0 {
			n = max(1, min(n, sizes[0]))
			if len(sizes) > 1 {
				sizes = sizes[1:]
			}
		}
		p.feed(stream[:n])
		stream = stream[n:]
	}
	return got
}

// reference reads the stream with x/net's Framer, and says how many bytes it
// took until the Framer refused to go on.
func reference(stream []byte) (want seen, valid int) {
	r := bytes.NewReader(stream)
	fr := http2.NewFramer(nil, r)
	fr.SetMaxReadFrameSize(16384) // as grpc-go does
	for {
		f, err := fr.ReadFrame()
		var streamErr http2.StreamError
		if err != nil && !errors.As(err, &streamErr) {
			return want, valid
		}
		valid = len(stream) - r.Len()
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				want.acknowledged()
				continue
			}
			limit, told := uint32(0), false
			_ = f.ForeachSetting(func(s http2.Setting) error {
				if s.ID == http2.SettingMaxConcurrentStreams {
					limit, told = s.Val, true
				}
				return nil
			})
			want.settings(limit, told)
		case *http2.GoAwayFrame:
			debug := f.DebugData()
			want.goAway(GoAway{
				LastStreamID: f.LastStreamID,
				Code:         uint32(f.ErrCode),
				Debug:        string(debug[:min(len(debug), debugLen)]),
			})
		}
	}
}

// write makes a stream of frames.
func write(frames ...func(*http2.Framer) error) []byte {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	fr.AllowIllegalWrites = true
	for _, f := range frames {
		if err := f(fr); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func settings(ss ...http2.Setting) func(*http2.Framer) error {
	return func(fr *http2.Framer) error { return fr.WriteSettings(ss...) }
}

func settingsAck(fr *http2.Framer) error { return fr.WriteSettingsAck() }

func ping(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{0, 0, 0, 4, 7}) }

func windowUpdate(fr *http2.Framer) error { return fr.WriteWindowUpdate(0, 1<<20) }

func unknown(fr *http2.Framer) error {
	return fr.WriteRawFrame(0xf7, 0x3, 9, []byte("\x00\x00\x06\x04"))
}

func data(n int) func(*http2.Framer) error {
	return func(fr *http2.Framer) error { return fr.WriteData(3, false, make([]byte, n)) }
}

func headers(fr *http2.Framer) error {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	if err := enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"}); err != nil {
		return err
	}
	return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: b.Bytes(), EndHeaders: true})
}

func goAway(last uint32, code http2.ErrCode, debug string) func(*http2.Framer) error {
	return func(fr *http2.Framer) error { return fr.WriteGoAway(last, code, []byte(debug)) }
}

func limit(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

var window = http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535}

func TestTheParserFindsWhatItIsThereFor(t *testing.T) {
	long := strings.Repeat("why ", 1000)
	for _, tc := range []struct {
		name   string
		stream []byte
		want   seen
	}{
		{"no bytes", nil, nil},
		{"a limit", write(settings(window, limit(7))), seen{Settings{true, 7}}},
		{"a limit of zero", write(settings(limit(0))), seen{Settings{true, 0}}},
		{"no limit", write(settings(window)), seen{Settings{}}},
		{"empty settings", write(settings()), seen{Settings{}}},
		{"the last value wins", write(settings(limit(7), window, limit(9))), seen{Settings{true, 9}}},
		{"an acknowledgement has no limit", write(settingsAck), seen{Acknowledged{}}},
		{"a limit in one frame is not one in the next", write(settings(limit(7)), settings()), seen{Settings{true, 7}, Settings{}}},
		{"going away", write(goAway(5, http2.ErrCodeEnhanceYourCalm, "too_many_pings")), seen{GoAway{LastStreamID: 5, Code: 11, Debug: "too_many_pings"}}},
		{"debug data is cut", write(goAway(1, 0, long)), seen{GoAway{LastStreamID: 1, Code: 0, Debug: long[:debugLen]}}},
		{"other frames", write(headers, data(0), data(1000), ping, windowUpdate, unknown, data(16384)), nil},
		{
			"among other frames",
			write(settings(limit(1)), settingsAck, headers, data(100), goAway(lastStreamIDMax, 0, ""), ping, data(9), goAway(3, 0, "")),
			seen{Settings{true, 1}, Acknowledged{}, GoAway{LastStreamID: lastStreamIDMax, Code: 0, Debug: ""}, GoAway{LastStreamID: 3, Code: 0, Debug: ""}},
		},
		{"a GOAWAY too short to be one", append([]byte{0, 0, 4, typeGoAway, 0, 0, 0, 0, 0}, 1, 2, 3, 4), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, parse(tc.stream)); diff != "" {
				t.Errorf("whole (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, parse(tc.stream, 1)); diff != "" {
				t.Errorf("byte by byte (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEverySplitIntoThreeGivesWhatTheFramerGives(t *testing.T) {
	stream := write(settings(window, limit(100), window), settingsAck, headers, data(20), unknown,
		goAway(lastStreamIDMax, 0, "bye"), ping, settings(limit(3)), goAway(7, http2.ErrCodeInternal, ""))
	want, valid := reference(stream)
	if valid != len(stream) || len(want) != 5 {
		t.Fatalf("the reference read %d of %d bytes and found %d things", valid, len(stream), len(want))
	}
	for i := range stream {
		for j := i; j < len(stream); j++ {
			got := parse(stream, i, j-i, len(stream))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("cut at %d and %d (-framer +parser):\n%s", i, j, diff)
			}
		}
	}
}

func TestASettingsFrameMayBeLongerThanAnyBuffer(t *testing.T) {
	many := make([]http2.Setting, 0, 2700) // nearly the 16 KiB that a frame may have
	for i := range uint32(2700) {
		many = append(many, limit(i))
	}
	for _, size := range []int{1, 5, 7, 4096, 1 << 20} {
		got := parse(write(settings(many...)), size)
		if diff := cmp.Diff(seen{Settings{true, 2699}}, got); diff != "" {
			t.Errorf("pieces of %d (-want +got):\n%s", size, diff)
		}
	}
}

func TestRandomStreamsInRandomPiecesGiveWhatTheFramerGives(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		frames := make([]func(*http2.Framer) error, rnd.IntN(20))
		for i := range frames {
			frames[i] = randomFrame(rnd)
		}
		stream := write(frames...)
		sizes := []int{1 + rnd.IntN(100), rnd.IntN(30), rnd.IntN(3), 1 + rnd.IntN(5000)}
		want, valid := reference(stream)
		if valid != len(stream) {
			t.Fatalf("seed %d: the reference read %d of %d bytes", seed, valid, len(stream))
		}
		if diff := cmp.Diff(want, parse(stream, sizes...)); diff != "" {
			t.Fatalf("seed %d, pieces of %v (-framer +parser):\n%s", seed, sizes, diff)
		}
	}
}

func randomFrame(rnd *rand.Rand) func(*http2.Framer) error {
	switch rnd.IntN(8) {
	case 0, 1:
		ss := make([]http2.Setting, rnd.IntN(40))
		for i := range ss {
			ss[i] = http2.Setting{ID: http2.SettingID(rnd.IntN(9)), Val: uint32(rnd.IntN(1 << 14))}
		}
		return settings(ss...)
	case 2:
		return settingsAck
	case 3:
		return goAway(rnd.Uint32()>>1, http2.ErrCode(rnd.IntN(14)), strings.Repeat("x", rnd.IntN(600)))
	case 4:
		return headers
	case 5:
		return unknown
	case 6:
		return ping
	default:
		return data(rnd.IntN(16384))
	}
}

// FuzzParser holds the parser against x/net's Framer. Where the Framer gives up,
// so does the transport that uses it; up to there, both must find the same, in
// whatever pieces the stream comes. Beyond, the pieces must not matter.
func FuzzParser(f *testing.F) {
	f.Add(write(settings(window, limit(7)), settingsAck, ping), []byte{1, 2, 3})
	f.Add(write(goAway(lastStreamIDMax, 0, "graceful_stop"), ping, goAway(3, 2, "")), []byte{8, 1})
	f.Add(write(headers, data(30), settings(), settings(limit(0), limit(1))), []byte{0})
	f.Add(write(unknown, windowUpdate, settings(limit(1<<31))), []byte{9, 9, 9})
	f.Add([]byte{0, 0, 7, typeSettings, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 9}, []byte{1})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		sizes := make([]int, len(cuts))
		for i, c := range cuts {
			sizes[i] = int(c)
		}
		want, valid := reference(stream)
		if diff := cmp.Diff(want, parse(stream[:valid], sizes...)); diff != "" {
			t.Errorf("pieces of %v (-framer +parser):\n%s", sizes, diff)
		}
		if diff := cmp.Diff(parse(stream), parse(stream, sizes...)); diff != "" {
			t.Errorf("pieces of %v (-whole +pieces):\n%s", sizes, diff)
		}
		if diff := cmp.Diff(parse(stream), parse(stream, 1)); diff != "" {
			t.Errorf("byte by byte (-whole +pieces):\n%s", diff)
		}
	})
}

func BenchmarkParser(b *testing.B) {
	stream := write(data(16384-9), data(16384-9))
	var none seen
	p := parser{sink: &none}
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		p.feed(stream)
	}
}
