package reason

import (
	"errors"
	"strings"
)

// Advise takes the text of an error apart: what is wrong, and what to do about it. advice
// is "" if nothing is known of such an error. What is wrong still has every word that
// programs match on.
func Advise(text string) (what, advice string) {
	e := entryOf(errors.New(text))
	if e == nil {
		return text, ""
	}
	advice = e.adviceOn(text)
	return strings.Replace(text, "; "+advice, "", 1), advice
}
