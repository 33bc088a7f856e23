package reason

import (
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
)

// connectionError is how the text of an error of grpc-go's transport begins. The cause
// follows as a quoted string.
const connectionError = "connection error: desc = "

// maxWords is how much of grpc-go's text is kept, in bytes: a server's certificate can
// have many names.
const maxWords = 4 << 10

// grpcWords returns the whole text of grpc-go's transport in err. It returns "" if there
// is none, or if it is not a single line that can be shown unescaped. Package scale
// appends what the tap has found.
func grpcWords(err error) string {
	text := err.Error()
	if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	if _, rest, found := strings.Cut(text, connectionError); found {
		quoted, failed := strconv.QuotedPrefix(rest)
		if failed != nil {
			return ""
		}
		text = connectionError + withoutPage(quoted)
	} else if before, _, found := strings.Cut(text, " (tap: "); found {
		text = before
	} else {
		return ""
	}
	if len(text) > maxWords || Escape(text) != text || strings.ContainsAny(text, "\n\t") {
		return ""
	}
	return text
}

// withWords adds grpc-go's text to an explanation of err, because programs match on it.
// The text replaces the detail if it contains it, and otherwise follows it. The advice
// stays last.
func withWords(text string, err error) string {
	words := grpcWords(err)
	if words == "" || strings.Contains(text, words) {
		return text
	}
	detail := Detail(err)
	quoted := strconv.Quote(detail)
	held := strings.Contains(words, quoted[1:len(quoted)-1])
	shown := cut(detail)
	switch {
	case held && text == shown:
		return words
	case !strings.Contains(text, "("+shown+")"):
		return text + " (" + words + ")"
	case !held:
		words = shown + "; " + words
	}
	return strings.Replace(text, "("+shown+")", "("+words+")", 1)
}
