package event_test

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/davidwartell/go-grpcpool/internal/event"
)

// kinds are all there are, and whether a queue may join them and whether they end a
// connection.
var kinds = map[event.Kind]struct{ floods, ends bool }{
	event.Dialled:    {},
	event.DialFailed: {floods: true},
	event.Grew:       {},
	event.Shrank:     {ends: true},
	event.Replaced:   {ends: true},
	event.Ejected:    {ends: true},
	event.Lost:       {ends: true},
	event.Starved:    {floods: true},

	event.Opened:         {},
	event.OpenFailed:     {floods: true},
	event.Tested:         {floods: true},
	event.TestFailed:     {floods: true},
	event.Failing:        {},
	event.Recovered:      {},
	event.Retired:        {},
	event.ClosedIdle:     {},
	event.ClosedRetired:  {},
	event.ClosedShutdown: {},
	event.WaitedTooLong:  {floods: true},
	event.Leaked:         {floods: true},
	event.Stuck:          {floods: true},
	event.Shutdown:       {},
}

func TestKindsAreSnakeCaseWords(t *testing.T) {
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for k, want := range kinds {
		if !word.MatchString(string(k)) {
			t.Errorf("%q is not in snake case", k)
		}
		if got := event.Floods(k); got != want.floods {
			t.Errorf("Floods(%q) = %v", k, got)
		}
		if got := event.EndsConnection(k); got != want.ends {
			t.Errorf("EndsConnection(%q) = %v", k, got)
		}
	}
	if len(kinds) != 22 {
		t.Errorf("%d kinds, two of them are the same word", len(kinds))
	}
}

// The packages alias Event, so their documentation shows no fields. Their comments list
// them instead, with the types that they have here.
func TestThePackagesDocumentTheFieldsOfAnEvent(t *testing.T) {
	for file, fields := range map[string][]string{
		"../../shared/event.go": {"Time", "Kind", "Channel", "Address", "Connection", "Took", "Connections", "Count", "Text", "Stack"},
		"../../scale/event.go":  {"Time", "Kind", "Address", "Connection", "Took", "Count", "Text"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		typ := reflect.TypeFor[event.Event]()
		if n := typ.NumField(); file == "../../shared/event.go" && n != len(fields) {
			t.Errorf("Event has %d fields, this test knows %d", n, len(fields))
		}
		for _, name := range fields {
			f, ok := typ.FieldByName(name)
			if !ok {
				t.Fatalf("there is no field %s", name)
			}
			want := strings.ReplaceAll(f.Type.String(), "event.Kind", "EventKind")
			if !regexp.MustCompile(`(?m)^//\t` + name + ` +` + regexp.QuoteMeta(want) + `( |$)`).Match(text) {
				t.Errorf("%s does not list %s %s", file, name, want)
			}
		}
	}
}

func TestAnEventInJSONHasOnlyWhatIsKnown(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, e := range map[string]event.Event{
		`{"time":"2026-01-02T03:04:05Z","kind":"shut_down","count":1}`: {Time: at, Kind: event.Shutdown, Count: 1, Stack: []uintptr{1}},
		`{"time":"2026-01-02T03:04:05Z","kind":"dial_failed","channel":2,"address":"a:1","connection":3,"took":1000,"connections":4,"count":5,"text":"EOF"}`: {
			Time: at, Kind: event.DialFailed, Channel: 2, Address: "a:1", Connection: 3, Took: time.Microsecond, Connections: 4, Count: 5, Text: "EOF",
		},
	} {
		got, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
