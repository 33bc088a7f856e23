package logline_test

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/davidwartell/go-grpcpool/internal/event"
	"github.com/davidwartell/go-grpcpool/internal/logline"
)

// book is a Log and what it has written.
type book struct {
	*logline.Log

	logger *slog.Logger
	begun  time.Time

	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func newBook(level slog.Level) *book {
	b := &book{begun: time.Now()}
	handler := slog.NewTextHandler(b, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey:
			return slog.Duration("at", a.Value.Time().Sub(b.begun))
		case logline.Hint:
			return slog.Attr{}
		}
		return a
	}})
	b.logger = slog.New(handler)
	b.Log = logline.New(b.logger, "p: ")
	return b
}

func (b *book) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

// add adds an event of a kind, of connection 1 unless it says otherwise.
func (b *book) add(k event.Kind, change ...func(*event.Event)) {
	e := event.Event{Time: time.Now(), Kind: k, Count: 1}
	if k == event.Dialled || event.EndsConnection(k) {
		e.Connection = 1
	}
	for _, f := range change {
		f(&e)
	}
	b.Handle(e)
}

func connection(id uint64) func(*event.Event) { return func(e *event.Event) { e.Connection = id } }
func channel(id uint64) func(*event.Event)    { return func(e *event.Event) { e.Channel = id } }
func text(words string) func(*event.Event)    { return func(e *event.Event) { e.Text = words } }
func count(n int) func(*event.Event)          { return func(e *event.Event) { e.Count = n } }

// want fails unless exactly these lines have been written since the last want: their time,
// level, message, and what else they have, as slog's text.
func (b *book) want(t *testing.T, lines ...string) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	got := strings.TrimSpace(b.text.String())
	b.text.Reset()
	got = regexp.MustCompile(`(?m)^at=(\S+) level=(\S+) msg="?p: ([^"\n]*?)"?( \w+=.*)?$`).ReplaceAllString(got, "$1 $2 $3$4")
	if diff := cmp.Diff(strings.Join(lines, "\n"), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAnOutageIsOneLineAndItsEndAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(slog.LevelInfo)
		b.add(event.Dialled)
		b.want(t)
		b.add(event.WaitedTooLong, text("too long"))
		b.add(event.Starved, text("starved"))
		b.add(event.Ejected, text("no answer"))
		time.Sleep(3 * time.Second)
		b.add(event.Failing, text("refused by me"))
		b.want(t, `3s WARN no connection error="refused by me"`)
		for range 60 {
			time.Sleep(time.Second)
			b.add(event.WaitedTooLong, text("too long"))
			b.add(event.OpenFailed, text("refused by you"))
			b.add(event.Lost)
		}
		b.want(t)
		b.add(event.Dialled)
		b.add(event.Recovered, text("last error: refused by you"))
		b.want(t, `1m3s INFO connected again outage=1m3s error="refused by you"`)
		time.Sleep(time.Hour)
		b.add(event.Shutdown)
		b.want(t)
	})
}

func TestAnOutageThatLastsIsToldOfEveryTenMinutesWhileSomebodyTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(slog.LevelInfo)
		b.add(event.Failing, text("no way"))
		b.want(t, `0s WARN no connection error="no way"`)
		for range 25 {
			time.Sleep(time.Minute)
			b.add(event.TestFailed, text("still no way"))
		}
		b.want(t, `10m0s WARN still no connection outage=10m0s error="still no way"`, `20m0s WARN still no connection outage=20m0s error="still no way"`)
		time.Sleep(time.Hour) // nobody tries
		b.want(t)
		b.add(event.Tested)
		b.add(event.Recovered)
		b.want(t, `1h25m0s INFO connected again outage=1h25m0s error="still no way"`)
		b.add(event.Shutdown)
	})
}

func TestALostConnectionIsAFaultIfAnotherTakesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(slog.LevelInfo)
		for id := range uint64(3) {
			b.add(event.Dialled, connection(id+1))
		}
		for id := range uint64(3) { // all at once
			b.add(event.Lost, connection(id+1), text("EOF"))
		}
		time.Sleep(time.Second)
		b.add(event.Dialled, connection(4))
		time.Sleep(time.Minute)
		b.want(t, `0s WARN lost a connection connection=1 count=3 error=EOF`)
		b.add(event.Ejected, connection(4)) // and nobody needs another
		time.Sleep(time.Hour)
		b.add(event.Dialled, connection(5))
		time.Sleep(time.Hour)
		b.want(t)
		b.add(event.Lost, connection(5), text("scale: connection to a:1 ended by GOAWAY (code 0, \"bye\")"))
		b.add(event.Dialled, connection(6))
		time.Sleep(time.Hour)
		b.want(t)
		b.add(event.Lost, connection(6), text("scale: connection to a:1 ended by GOAWAY (code 11, \"calm down\")"))
		b.add(event.Dialled, connection(7))
		b.add(event.Shutdown) // before it is known what becomes of it
		b.want(t, `3h1m1s WARN lost a connection connection=6 error="scale: connection to a:1 ended by GOAWAY (code 11, \"calm down\")"`)
		time.Sleep(time.Hour)
		b.add(event.Failing)
		b.want(t)
	})
}

// The connections of a channel end with it.
func TestAClosedChannelHasNoOpenConnections(t *testing.T) {
	for _, end := range []event.Kind{event.OpenFailed, event.ClosedIdle, event.ClosedRetired, event.ClosedShutdown} {
		synctest.Test(t, func(t *testing.T) {
			b := newBook(slog.LevelInfo)
			b.add(event.Dialled, channel(1))
			b.add(event.Dialled, channel(1), connection(2))
			b.add(event.Dialled, channel(2))
			b.add(event.Lost, channel(2), text("EOF"))
			b.add(end, channel(1))
			time.Sleep(time.Minute)
			b.want(t)
			b.add(event.Shutdown)
		})
	}
}

func TestConnectionsThatComeAndGoAreToldOfFiveTimesInTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(slog.LevelInfo)
		lines := func() (n int) {
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			n = strings.Count(b.text.String(), "\n")
			b.text.Reset()
			return n
		}
		b.add(event.Dialled)
		for range 20 {
			b.add(event.Lost)
			b.add(event.Dialled)
			time.Sleep(15 * time.Second)
		}
		if n := lines(); n != 5 {
			t.Errorf("%d lines, want 5", n)
		}
		for range 3 { // an outage that ends soon has no line either
			b.add(event.Failing)
			time.Sleep(10 * time.Second)
			b.add(event.Recovered)
		}
		if n := lines(); n != 0 {
			t.Errorf("%d lines about short outages, want none", n)
		}
		b.add(event.Failing, text("no way"))
		time.Sleep(time.Minute)
		b.want(t, `5m30s WARN no connection suppressed=18 error="no way"`)
		time.Sleep(5 * time.Minute)
		b.add(event.Recovered)
		b.want(t, `11m30s INFO connected again outage=6m0s error="no way"`)
		b.add(event.Failing)
		b.want(t, `11m30s WARN no connection`)
		b.add(event.Shutdown)
	})
}

func TestAFaultThatRecursIsToldOfAtOnceAndEveryTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(slog.LevelInfo)
		b.add(event.Stuck, text("hangs"))
		b.want(t, `0s WARN a call of the factory did not return when its context ended error=hangs`)
		for range 60 * 11 {
			time.Sleep(time.Second)
			b.add(event.Stuck, text("hangs"), count(2))
		}
		b.want(t, `10m0s WARN a call of the factory did not return when its context ended count=2 suppressed=1198 error=hangs`)
		time.Sleep(2 * time.Minute)
		b.add(event.Stuck, text("hangs"))
		b.want(t, `13m0s WARN a call of the factory did not return when its context ended suppressed=120 error=hangs`)
		b.add(event.Leaked, text("here"))
		b.add(event.Leaked, text("there"))
		b.add(event.Leaked, text("here"))
		synctest.Wait()
		if n := strings.Count(b.text.String(), "has not been returned"); n != 2 {
			t.Errorf("%d lines about two places that leak", n)
		}
		b.add(event.Shutdown)
	})
}

func TestCallersThatWaitWithoutAnOutageAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(slog.LevelInfo)
		b.add(event.Dialled)
		for range 30 {
			b.add(event.Starved, text("all streams are taken"))
			time.Sleep(time.Second)
		}
		b.want(t, `0s WARN a call ended before it had a stream count=7 error="all streams are taken"`)
		time.Sleep(2 * time.Minute)
		b.want(t)
		b.add(event.WaitedTooLong, text("late"))
		b.Rest() // it is known now
		b.want(t, `2m30s WARN a caller waited too long for a connection error=late`)
		b.add(event.Shutdown)
	})
}

func TestDetailsAreALineASecondOfAKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook(slog.LevelDebug)
		for range 10 {
			b.add(event.Tested)
			b.add(event.Lost, text("EOF"))
		}
		b.want(t, `0s DEBUG tested`, `0s DEBUG lost a connection connection=1 error=EOF`)
		time.Sleep(time.Second)
		b.add(event.Tested, text("fine"))
		b.want(t, `1s DEBUG tested suppressed=9 error=fine`)
		b.add(event.Shutdown)
		b.want(t, `1s DEBUG the pool is closed`, `1s DEBUG lost a connection suppressed=9`)
	})
}

func TestALogWantsOnlyWhatItNeeds(t *testing.T) {
	for level, want := range map[slog.Level]map[event.Kind]bool{
		slog.LevelDebug: {event.Tested: true, event.Grew: true, event.Lost: true, event.Failing: true, "unknown": false},
		slog.LevelInfo:  {event.Tested: false, event.Grew: false, event.Lost: true, event.Failing: true, event.Dialled: true, event.Shutdown: true},
		slog.LevelWarn:  {event.Tested: false, event.Lost: true, event.Leaked: true, event.DialFailed: true},
		slog.LevelError: {event.Tested: false, event.Lost: false, event.Failing: false, event.Dialled: false},
	} {
		b := newBook(level)
		for kind, wanted := range want {
			if got := b.Wants(kind); got != wanted {
				t.Errorf("Wants(%q) at %v is %v", kind, level, got)
			}
		}
	}
	var none *logline.Log
	none.Rest()
	if none.Wants(event.Failing) || logline.New(slog.New(slog.DiscardHandler), "p: ").Wants(event.Failing) {
		t.Error("a Log that writes nowhere wants something")
	}
}

func TestEveryWarningSaysWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for kind, part := range map[event.Kind]string{
			event.Failing: "check that the server is running", event.WaitedTooLong: "give callers more time", event.Starved: "check that the server",
			event.Lost: "check its log", event.Ejected: "overloaded", event.Leaked: "call Return", event.Stuck: "return when their context ends",
		} {
			var log bytes.Buffer
			b := newBook(slog.LevelInfo)
			b.Log = logline.New(slog.New(slog.NewTextHandler(&log, nil)), "p: ")
			b.add(event.Dialled, connection(7))
			b.add(kind)
			b.add(event.Shutdown)
			if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, ` hint="`) || !strings.Contains(got, part) {
				t.Errorf("%q: the line does not say %q: %s", kind, part, got)
			}
		}
		for text, part := range map[string]string{
			"dial tcp 10.0.0.1:443: connect: connection refused":                                   `hint="check the address, or start the server"`,
			"connecting: the host does not answer; check the address, that the host is up, and so": "check the address",
			"ejected: no answer to a probe":                                                        "overloaded",
		} {
			var log bytes.Buffer
			b := newBook(slog.LevelInfo)
			b.Log = logline.New(slog.New(slog.NewTextHandler(&log, nil)), "p: ")
			b.Handle(event.Event{Time: time.Now(), Kind: event.Failing, Text: text})
			if got := log.String(); !strings.Contains(got, part) {
				t.Errorf("%q: the line does not say %q: %s", text, part, got)
			}
		}
	})
}

func TestAPeersTextIsEscapedAndCut(t *testing.T) {
	hostile := "bad\nnews\x1b[31m\u202e" + strings.Repeat("x", 5000)
	b := newBook(slog.LevelInfo)
	b.Handle(event.Event{Time: b.begun, Kind: event.Failing, Text: hostile, Address: "a\u202eb"})
	got := b.text.String()
	if !strings.Contains(got, `bad news\\u001b[31m\\u202ex`) || !strings.Contains(got, `address=a\u202eb `) || len(got) > 1500 {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if got := logline.Text(errors.New(hostile)).Value.String(); !strings.HasPrefix(got, `bad news\u001b[31m\u202exxx`) || len(got) > 1100 {
		t.Errorf("the text of an error is %q", got)
	}
	if !logline.Text(nil).Equal(slog.Attr{}) {
		t.Error("no error has a text")
	}
}

func TestASwitchedLoggerLogsEventsOnlyWhenItIsOn(t *testing.T) {
	b := newBook(slog.LevelInfo)
	plain, off := b.logger, new(logline.Switch)
	for _, tc := range []struct {
		logger *slog.Logger
		want   int // lines before the switch is on, and after
	}{{plain, 1}, {off.Logger(plain), 0}, {off.Logger(plain.With("a", "b")), 0}} {
		log, under := logline.NewOfChannel(tc.logger, "p: ")
		b.text.Reset()
		log.Handle(event.Event{Time: b.begun, Kind: event.Stuck})
		if n := strings.Count(b.text.String(), "did not return"); n != tc.want {
			t.Errorf("%d lines, want %d", n, tc.want)
		}
		under.Warn("always")
		if !strings.Contains(b.text.String(), "msg=always") {
			t.Error("what is no event was not logged")
		}
	}
	log, _ := logline.NewOfChannel(off.Logger(plain), "p: ")
	off.On()
	b.text.Reset()
	log.Handle(event.Event{Time: b.begun, Kind: event.Stuck})
	if b.text.Len() == 0 {
		t.Error("nothing was logged though the switch is on")
	}
	if log, _ := logline.NewOfChannel(slog.New(slog.DiscardHandler), "p: "); log != nil || off.Logger(slog.New(slog.DiscardHandler)).Handler() != slog.DiscardHandler {
		t.Error("a logger that discards costs something")
	}
	var never *logline.Switch
	never.On()
	if log, _ := logline.NewOfChannel(never.Logger(plain), "p: "); log != nil {
		t.Error("there is a Log that never writes")
	}
}
