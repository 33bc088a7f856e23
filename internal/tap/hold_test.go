package tap_test

import (
	"bytes"
	"io"
	"math"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// framed is what write writes.
func framed(t *testing.T, write func(*http2.Framer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(http2.NewFramer(&b, nil)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTheFirstGoAwayOfTwoIsHeld(t *testing.T) {
	settings := framed(t, func(f *http2.Framer) error { return f.WriteSettings() })
	data := framed(t, func(f *http2.Framer) error { return f.WriteData(1, false, []byte("data")) })
	first := framed(t, func(f *http2.Framer) error { return f.WriteGoAway(math.MaxInt32, http2.ErrCodeNo, nil) })
	last := framed(t, func(f *http2.Framer) error { return f.WriteGoAway(7, http2.ErrCodeNo, nil) })
	broken := framed(t, func(f *http2.Framer) error { return f.WriteGoAway(math.MaxInt32, http2.ErrCodeProtocol, nil) })
	ping := framed(t, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1, 6, 1, 8, 0, 3, 3, 9}) })
	other := framed(t, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) })
	for _, tc := range []struct {
		name  string
		reads [][]byte // after the SETTINGS
		seen  [][]byte // by the transport
		told  int      // GOAWAYs
	}{
		{"alone", [][]byte{first}, nil, 1},
		{"with its PING", [][]byte{bytes.Join([][]byte{first, ping}, nil)}, nil, 1},
		{"its PING comes later", [][]byte{first, data, other, ping, data}, [][]byte{data, other, data}, 1},
		{"between other frames", [][]byte{bytes.Join([][]byte{data, first, ping, data}, nil)}, [][]byte{data, data}, 1},
		{"behind half a frame", [][]byte{data[:5], append(bytes.Clone(data[5:]), first...)}, [][]byte{data}, 1},
		{"and the last is not", [][]byte{first, ping, last}, [][]byte{last}, 2},
		{"a second first is not", [][]byte{first, first}, [][]byte{first}, 2},
		{"an error is not", [][]byte{broken, ping}, [][]byte{broken, ping}, 1},
		{"in pieces it is not", [][]byte{first[:4], first[4:], ping}, [][]byte{first, ping}, 1},
		{"the PING without it is not", [][]byte{ping}, [][]byte{ping}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told := 0
			s := tap.New(tap.Events{GoAway: func(tap.GoAway) { told++ }}).WithHold()
			client, server := net.Pipe()
			conn := s.Wrap(client, nil)
			go func() {
				for _, b := range append([][]byte{settings}, tc.reads...) {
					_, _ = server.Write(b)
				}
				_ = server.Close()
			}()
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			want := append(bytes.Clone(settings), bytes.Join(tc.seen, nil)...)
			if !bytes.Equal(got, want) || told != tc.told {
				t.Errorf("the transport saw %x, want %x; %d GOAWAYs were told, want %d", got, want, told, tc.told)
			}
		})
	}
}

// FuzzWithhold feeds any bytes in two pieces: what the transport sees is what came,
// but for whole frames of 17 bytes and more.
func FuzzWithhold(f *testing.F) {
	f.Add([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}, uint16(0))
	f.Add([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 6, 1, 8, 0, 3, 3, 9}, uint16(5))
	settings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		cut := min(int(at), len(b))
		client, server := net.Pipe()
		conn := tap.New(tap.Events{}).WithHold().Wrap(client, nil)
		go func() {
			for _, piece := range [][]byte{settings, b[:cut], b[cut:]} {
				_, _ = server.Write(piece)
			}
			_ = server.Close()
		}()
		got, _ := io.ReadAll(conn)
		if missing := len(settings) + len(b) - len(got); missing != 0 && missing < 17 {
			t.Errorf("%d bytes are missing", missing)
		}
	})
}
