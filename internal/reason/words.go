package reason

import (
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
)

// connectionError is how grpc-go's transport begins the text of an error. What was
// found out follows as a quoted string.
const connectionError = "connection error: desc = "

// maxWords bounds the text of grpc-go that is kept: the names in a server's certificate
// can be many.
const maxWords = 4 << 10

// grpcWords are the words of grpc-go's transport in err, whole; "" if there are none, or
// they are not one line that may be shown as it is. Package scale puts what the tap has found out behind them.
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

// withWords puts grpc-go's words into an explanation of err: programs look for them.
// They stand in place of the detail if they hold it, and otherwise behind it. The
// advice stays last.
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
