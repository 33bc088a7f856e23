package alike_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
)

func TestACallIsTheSameOnAPlainChannelOnScaleAndOnAPool(t *testing.T) {
	for _, st := range states() {
		t.Run(st.name, func(t *testing.T) {
			for _, b := range behaviours() {
				for shape, streaming := range map[string]bool{"unary": false, "streaming": true} {
					t.Run(b.name+"/"+shape, func(t *testing.T) { compare(t, st, b, streaming) })
				}
			}
		})
	}
}

func compare(t *testing.T, st state, b behaviour, streaming bool) {
	t.Helper()
	var want outcome
	synctest.Test(t, func(t *testing.T) { want = play(t, plain, st, b, streaming) })
	for _, k := range ours {
		synctest.Test(t, func(t *testing.T) {
			got := play(t, k, st, b, streaming)
			if diff := difference(want, got); diff != "" {
				t.Errorf("%s: %s", k.name, diff)
			}
			if !strings.Contains(got.Text, want.Text) {
				t.Errorf("%s: Text %q -> %q", k.name, want.Text, got.Text)
			}
		})
	}
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
