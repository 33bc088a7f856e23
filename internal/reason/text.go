package reason

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape makes a peer's text safe for a terminal or a log: it writes what is not
// printable (control characters, overrides of the writing direction, bytes that are not
// UTF-8) as \u001b or \xff. It keeps line breaks and tabs. Escaped JSON is still JSON
// with the same value.
func Escape(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var out strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, text[0])
		case !unprintable(r):
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		text = text[size:]
	}
	return out.String()
}

// unprintable also returns true for utf8.RuneError, which stands for bytes that are not
// UTF-8.
func unprintable(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) && r != '\n' && r != '\t'
}

// OneLine returns text in one line, escaped.
func OneLine(text string) string {
	return Escape(strings.Join(strings.Fields(text), " "))
}

// httpWords begin gRPC's error for a response that is not gRPC. The content type follows,
// and the beginning of the page as a quoted string.
const httpWords = "unexpected HTTP status code received from server: "

var pageTitle = regexp.MustCompile(`(?i)<title>([^<]{1,100})</title>`)

// connectWords begin gRPC's error for a CONNECT that a proxy refused. The proxy's whole
// response follows, quoted, with its page.
const connectWords = "failed to do connect handshake"

var connectAnswer = regexp.MustCompile(connectWords + `, response: \\*"([^\\"]*)\\.*`)

// withoutPage removes the page of an HTTP response except for its title, and all but the
// first line of a proxy's response.
func withoutPage(text string) string {
	text = connectAnswer.ReplaceAllString(text, connectWords+", response: $1")
	at := strings.Index(text, httpWords)
	if at < 0 {
		return text
	}
	behind := text[at+len(httpWords):]
	end := strings.IndexAny(behind, ";\n")
	if end < 0 {
		return text
	}
	short := text[:at+len(httpWords)+end]
	if title := pageTitle.FindStringSubmatch(behind); title != nil {
		short += fmt.Sprintf(", %q", OneLine(title[1]))
	}
	return short
}

// httpStatus returns the HTTP status in gRPC's error, or 0.
func httpStatus(detail string) int {
	_, behind, _ := strings.Cut(detail, httpWords)
	digits, _, _ := strings.Cut(behind, " ")
	code, _ := strconv.Atoi(digits) // 0 if it is not a number
	return code
}

// saysHTTP describes a response that is HTTP and not gRPC.
func saysHTTP(detail string) string {
	code := httpStatus(detail)
	if name := http.StatusText(code); name != "" {
		return fmt.Sprintf("it answers HTTP %d (%s), not gRPC", code, name)
	}
	return fmt.Sprintf("it answers HTTP %d, not gRPC", code)
}

// adviceOnHTTP returns what to do about it.
func adviceOnHTTP(detail string) string {
	switch code := httpStatus(detail); code {
	case http.StatusBadRequest:
		return "check the port, and whether the web server there requires a client certificate"
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return "a web server or proxy there rejected the call: check which credentials it needs, and whether it routes this call to a gRPC server"
	case http.StatusTooManyRequests:
		return "a proxy there limits the rate: call less often"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "a proxy answered and could not reach its backend: check the server behind it"
	default:
		if code >= 300 && code < 400 {
			return "a web server there redirects the call, perhaps to a login page: check the host and port, and whether it routes this call to a gRPC server"
		}
		return "a web server or proxy answers there: check the host and port, and whether it routes this call to a gRPC server"
	}
}
