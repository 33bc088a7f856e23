package shared

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzOneLine(f *testing.F) {
	for _, seed := range []string{"", "plain", "two\nlines", "\x1b[31mred", "\u202eright to left", "\xff\xfe", strings.Repeat("é", 400)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := oneLine(text)
		if !utf8.ValidString(got) {
			t.Errorf("%q becomes %q, which is no UTF-8", text, got)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q becomes %q, which is not printable", text, got)
		}
		if len(got) > 12*maxEventText { // "\U0010ffff" for each byte
			t.Errorf("%d bytes become %d", len(text), len(got))
		}
		if utf8.ValidString(text) && len(text) <= maxEventText && !strings.ContainsFunc(text, unprintable) && got != text {
			t.Errorf("%q becomes %q for no reason", text, got)
		}
	})
}
