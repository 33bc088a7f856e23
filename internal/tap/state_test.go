package tap_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// script is a connection whose reads and writes give what the test has put
// there: first the bytes, then the error.
type script struct {
	net.Conn // nil: what is not scripted must not be called

	in       bytes.Buffer
	readErr  error
	writeErr error
}

func (s *script) LocalAddr() net.Addr  { return &net.TCPAddr{Port: 1} }
func (s *script) RemoteAddr() net.Addr { return &net.TCPAddr{Port: 2} }
func (s *script) Close() error         { return nil }

func (s *script) SetReadDeadline(time.Time) error { return nil }

func (s *script) Read(b []byte) (int, error) {
	if s.in.Len() == 0 {
		return 0, s.readErr
	}
	return s.in.Read(b)
}

func (s *script) Write([]byte) (int, error) { return 0, s.writeErr }

// hear lets the tapped connection read all that s has.
func (s *script) hear(t *testing.T, conn net.Conn) {
	t.Helper()
	for s.in.Len() > 0 {
		if _, err := conn.Read(make([]byte, 1<<10)); err != nil {
			t.Fatalf("reading the script: %v", err)
		}
	}
}

func limit(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

func TestAFreshStateKnowsNothing(t *testing.T) {
	s := tap.New(tap.Events{})
	if s.Attached() || s.Settled() || s.Limit() != tap.Unlimited || !s.LastHeard().IsZero() || s.Cause() != nil {
		t.Errorf("attached %v, settled %v, limit %d, heard %v, cause %v",
			s.Attached(), s.Settled(), s.Limit(), s.LastHeard(), s.Cause())
	}
	if _, ok := s.LastGoAway(); ok {
		t.Error("a GOAWAY out of nowhere")
	}
	if _, ok := s.TLS(); ok {
		t.Error("TLS out of nowhere")
	}
	if s.LocalAddr() != nil || s.RemoteAddr() != nil {
		t.Errorf("addresses %v and %v", s.LocalAddr(), s.RemoteAddr())
	}
}

func TestTheLimitIsToldAtFirstAndWhenItChanges(t *testing.T) {
	var told []uint32
	s := tap.New(tap.Events{Limit: func(n uint32) { told = append(told, n) }})
	var peer script
	conn := s.Wrap(&peer, nil)
	if !s.Attached() || s.Settled() {
		t.Fatalf("attached %v and settled %v after Wrap", s.Attached(), s.Settled())
	}
	fr := http2.NewFramer(&peer.in, nil)
	for _, step := range []struct {
		settings []http2.Setting
		want     uint32
	}{
		{nil, tap.Unlimited},
		{[]http2.Setting{limit(100)}, 100},
		{[]http2.Setting{limit(100)}, 100},
		{nil, 100},
		{[]http2.Setting{limit(0)}, 0},
		{[]http2.Setting{limit(5), limit(8)}, 8},
	} {
		if err := fr.WriteSettings(step.settings...); err != nil {
			t.Fatal(err)
		}
		peer.hear(t, conn)
		if s.Limit() != step.want || !s.Settled() {
			t.Errorf("after SETTINGS %v: limit %d, settled %v; want %d", step.settings, s.Limit(), s.Settled(), step.want)
		}
	}
	if diff := cmp.Diff([]uint32{math.MaxUint32, 100, 0, 8}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestBothGoAwaysAreTold(t *testing.T) {
	var told []tap.GoAway
	s := tap.New(tap.Events{GoAway: func(g tap.GoAway) { told = append(told, g) }})
	var peer script
	conn := s.Wrap(&peer, nil)
	fr := http2.NewFramer(&peer.in, nil)
	fr.WriteGoAway(math.MaxInt32, http2.ErrCodeNo, nil)
	fr.WriteGoAway(7, http2.ErrCodeNo, []byte("age"))
	peer.hear(t, conn)
	want := []tap.GoAway{{LastStreamID: math.MaxInt32}, {LastStreamID: 7, Debug: "age"}}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if last, ok := s.LastGoAway(); !ok || last != want[1] {
		t.Errorf("LastGoAway = %+v, %v", last, ok)
	}
	if !want[0].Graceful() || want[1].Graceful() || (tap.GoAway{LastStreamID: math.MaxInt32, Code: 11}).Graceful() {
		t.Error("only the first of two is graceful")
	}
}

func TestLastHeardIsTheTimeOfTheLastRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tap.New(tap.Events{})
		var peer script
		conn := s.Wrap(&peer, nil)
		if got := s.LastHeard(); !got.IsZero() {
			t.Errorf("LastHeard = %v before a byte has come", got)
		}
		for range 3 {
			peer.in.WriteString("\x00")
			peer.hear(t, conn)
			if d := time.Since(s.LastHeard()); d != 0 {
				t.Errorf("heard %v ago, want now", d)
			}
			time.Sleep(time.Minute)
			if d := time.Since(s.LastHeard()); d != time.Minute {
				t.Errorf("heard %v ago, want a minute", d)
			}
		}
	})
}

func TestANewConnectionStartsTheStateAnew(t *testing.T) {
	var told int
	s := tap.New(tap.Events{Limit: func(uint32) { told++ }, GoAway: func(tap.GoAway) { told++ }})
	var first, second script
	old := s.Wrap(&first, nil)
	fr := http2.NewFramer(&first.in, nil)
	fr.WriteSettings(limit(3))
	first.hear(t, old)
	s.Wrap(&second, nil)
	fr.WriteSettings(limit(4))
	fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	first.hear(t, old)
	first.readErr = syscall.ECONNRESET
	old.Read(make([]byte, 1))
	if told != 1 {
		t.Errorf("%d events, want one: the first connection's limit", told)
	}
	_, away := s.LastGoAway()
	if s.Limit() != tap.Unlimited || s.Settled() || away || s.Cause() != nil || !s.LastHeard().IsZero() {
		t.Errorf("limit %d, settled %v, away %v, cause %v, heard %v: the old connection shows through",
			s.Limit(), s.Settled(), away, s.Cause(), s.LastHeard())
	}
}

func TestTheMostTellingErrorIsTheCause(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	reset := &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	pipe := &net.OpError{Op: "write", Err: syscall.EPIPE}
	ours := &net.OpError{Op: "read", Err: net.ErrClosed}
	read := func(s *script, c net.Conn, err error) { s.readErr = err; c.Read(make([]byte, 1)) }
	write := func(s *script, c net.Conn, err error) { s.writeErr = err; c.Write([]byte("x")) }
	shut := func(_ *script, c net.Conn, _ error) { c.Close() }
	type step struct {
		do  func(*script, net.Conn, error)
		err error
	}
	for _, tc := range []struct {
		name  string
		steps []step
		want  error
		says  string
	}{
		{"the peer closes", []step{{read, io.EOF}}, io.EOF, "tap: closed by the peer: EOF"},
		{"a reset", []step{{read, reset}}, syscall.ECONNRESET, "tap: reading: read: connection reset by peer"},
		{"a failed write", []step{{write, pipe}}, syscall.EPIPE, "tap: writing: write: broken pipe"},
		{"an alert after a failed write", []step{{write, pipe}, {read, alert}}, alert, "tap: refused by the peer: remote error: tls: bad certificate"},
		{"an alert after a reset", []step{{read, reset}, {read, alert}}, alert, ""},
		{"a failed write after an alert", []step{{read, alert}, {write, pipe}}, alert, ""},
		{"the end after a failed write", []step{{write, pipe}, {read, io.EOF}}, io.EOF, ""},
		{"the end after a write that was reset", []step{{write, reset}, {read, io.EOF}}, syscall.ECONNRESET, ""},
		{"closed by us", []step{{shut, nil}, {read, ours}, {write, ours}}, nil, ""},
		{"closed by us, and then by the peer", []step{{shut, nil}, {read, io.EOF}}, nil, ""},
		{"closed below us", []step{{read, ours}}, nil, ""},
		{"an alert that crosses our closing", []step{{shut, nil}, {read, alert}}, alert, ""},
		{"closed by us after the peer", []step{{read, io.EOF}, {shut, nil}, {read, ours}}, io.EOF, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := tap.New(tap.Events{})
			var peer script
			conn := s.Wrap(&peer, nil)
			for _, step := range tc.steps {
				step.do(&peer, conn, step.err)
			}
			got := s.Cause()
			if !errors.Is(got, tc.want) || tc.says != "" && got.Error() != tc.says {
				t.Errorf("Cause() = %v, want %v %q", got, tc.want, tc.says)
			}
		})
	}
}
