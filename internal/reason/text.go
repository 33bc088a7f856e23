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

// Escape makes text of a peer fit for a terminal or a log: what is not printable
// (control characters, overrides of the writing direction, bytes that are not UTF-8)
// is written as \u001b or \xff. Line breaks and tabs stay. What it makes of JSON is
// JSON, of the same value.
func Escape(text string) string {
	if !strings.ContainsFunc(text, unfit) {
		return text
	}
	var out strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, text[0])
		case !unfit(r):
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

// unfit is also true of utf8.RuneError, which stands for bytes that are not UTF-8.
func unfit(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) && r != '\n' && r != '\t'
}

// OneLine is text in one line, escaped.
func OneLine(text string) string {
	return Escape(strings.Join(strings.Fields(text), " "))
}

// httpWords are gRPC's for an answer that is not gRPC. Behind them come the content
// type, and the beginning of the page as a quoted string.
const httpWords = "unexpected HTTP status code received from server: "

var pageTitle = regexp.MustCompile(`(?i)<title>([^<]{1,100})</title>`)

// connectWords are gRPC's for a proxy's answer to CONNECT, which follows whole and
// quoted, its page included.
const connectWords = "failed to do connect handshake"

var connectAnswer = regexp.MustCompile(connectWords + `, response: \\*"([^\\"]*)\\.*`)

// withoutPage leaves out the page of an HTTP answer, except its title, and all but the
// first line of a proxy's.
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

// httpStatus is the HTTP status in gRPC's words for it, or 0.
func httpStatus(detail string) int {
	_, behind, _ := strings.Cut(detail, httpWords)
	digits, _, _ := strings.Cut(behind, " ")
	code, _ := strconv.Atoi(digits) // 0 if it is none
	return code
}

// saysHTTP is what an answer in HTTP is.
func saysHTTP(detail string) string {
	code := httpStatus(detail)
	if name := http.StatusText(code); name != "" {
		return fmt.Sprintf("it answers HTTP %d (%s), not gRPC", code, name)
	}
	return fmt.Sprintf("it answers HTTP %d, not gRPC", code)
}

// adviceOnHTTP is what to do about it.
func adviceOnHTTP(detail string) string {
	switch code := httpStatus(detail); code {
	case http.StatusBadRequest:
		return "check the port, and whether the web server there wants a client certificate"
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
