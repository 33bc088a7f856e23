package poolz_test

import "testing"

func FuzzTextOfAPeer(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	want := elements(f, ask(handler(busy("harmless")), "?format=fragment").Body.String())
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return // nothing is shown in its place
		}
		for name, n := range elements(t, ask(handler(busy(text)), "?format=fragment").Body.String()) {
			if n != want[name] {
				t.Errorf("%q makes %d <%s> on the page, want %d", text, n, name, want[name])
			}
		}
	})
}
