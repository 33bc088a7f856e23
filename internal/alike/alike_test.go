package alike_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"

	"github.com/davidwartell/go-grpcpool/internal/jitter"
	"github.com/davidwartell/go-grpcpool/shared"
)

func TestACallIsTheSameOnAPlainChannelOnScaleAndOnAPool(t *testing.T) {
	compared := 0
	for _, st := range states() {
		t.Run(st.name, func(t *testing.T) {
			for _, b := range behaviours() {
				for _, shape := range []string{"unary", "streaming"} {
					t.Run(b.name+"/"+shape, func(t *testing.T) {
						compared++
						compare(t, ours, st, b, shape == "streaming")
					})
				}
			}
		})
	}
	if compared == len(states())*len(behaviours())*2 { // the -run flag left none out
		checkAllowances(t)
	}
}

// A pool that waits makes every call as a plain channel whose calls wait by default.
func TestWithWaitForReadyIsACallOptionOfEveryCall(t *testing.T) {
	waits := grpc.WithDefaultCallOptions(grpc.WaitForReady(true))
	pool := kind{poolName, pools(shared.WithWaitForReady())}
	for _, name := range []string{"refused for a while", "closed"} {
		for _, b := range behaviours() {
			b.plain = append(b.plain, waits)
			b.leavesConnectionAlone = false // while a call waits there are dials, as many as each likes
			for _, shape := range []string{"unary", "streaming"} {
				t.Run(name+"/"+b.name+"/"+shape, func(t *testing.T) {
					compare(t, []kind{pool}, named(name), b, shape == "streaming")
				})
			}
		}
	}
}

// compare makes a call on each kind of channel. What is not allowed to differ must be equal.
func compare(t *testing.T, kinds []kind, st state, b behaviour, streaming bool) {
	t.Helper()
	defer jitter.Seed(1)()
	play := func(k kind, st state) (o outcome) {
		synctest.Test(t, func(t *testing.T) { o = play(t, k, st, b, streaming) })
		return o
	}
	onPlain := play(plain, st)
	for _, k := range kinds {
		want, got := onPlain, play(k, st)
		for _, a := range allowed(k, st, b) {
			before, had := want, got
			if a.as != "" {
				want = play(plain, named(a.as))
			}
			a.apply(&want, &got)
			if !reflect.DeepEqual([]outcome{before, had}, []outcome{want, got}) {
				a.note(k, st)
			}
		}
		if diff := difference(want, got); diff != "" {
			t.Errorf("%s: %s", k.name, diff)
		}
		if !hasWordsOf(got.Text, want.Text) {
			t.Errorf("%s: Text %q -> %q", k.name, want.Text, got.Text)
		}
	}
}

func named(name string) state {
	all := states()
	return all[slices.IndexFunc(all, func(st state) bool { return st.name == name })]
}

// difference shows the fields of two outcomes that differ, but for their texts.
func difference(want, got outcome) string {
	var parts []string
	a, b := reflect.ValueOf(want), reflect.ValueOf(got)
	for _, field := range reflect.VisibleFields(a.Type()) {
		if x, y := fmt.Sprint(a.FieldByIndex(field.Index)), fmt.Sprint(b.FieldByIndex(field.Index)); x != y && field.Name != "Text" {
			parts = append(parts, fmt.Sprintf("%s %s -> %s", field.Name, x, y))
		}
	}
	return strings.Join(parts, "; ")
}

// hasWordsOf reports whether a text has gRPC's words of another, in their order. Ours may
// add to them where gRPC's begin and where they embed a cause.
func hasWordsOf(text, words string) bool {
	for _, joint := range []string{"latest balancer error: ", "max retries exhausted: failed after 4 attempts: rpc error: code = Unavailable desc = "} {
		words = strings.ReplaceAll(words, joint, joint+"\x00")
	}
	for word := range strings.SplitSeq(words, "\x00") {
		_, after, ok := strings.Cut(text, word)
		if !ok {
			return false
		}
		text = after
	}
	return true
}
