package poolz

import (
	"net/http"
	"net/netip"
	"strings"
)

// refuseRemote says why a request is not answered, or "" if it comes from this
// machine and is meant for it.
func refuseRemote(r *http.Request) string {
	const hint = "; poolz.WithAccess decides otherwise"
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return "this page answers to loopback addresses only" + hint
	}
	if !isLoopbackHost(r.Host) {
		// A site whose name resolves to 127.0.0.1 could else read the page in a
		// browser on this machine (DNS rebinding).
		return "this page is asked for by a name that is not this machine's: use localhost or 127.0.0.1" + hint
	}
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if len(r.Header.Values(header)) > 0 {
			return "this page is asked for through a proxy, behind which anybody may be" + hint
		}
	}
	return ""
}

// isLoopbackHost reports whether the Host of a request, with or without a port, is
// a name or address that means this machine and nothing else (RFC 6761, section
// 6.3).
func isLoopbackHost(host string) bool {
	if at, err := netip.ParseAddrPort(host); err == nil {
		return at.Addr().Unmap().IsLoopback()
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil {
		return addr.Unmap().IsLoopback()
	}
	name, port, _ := strings.Cut(host, ":")
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// secure sets the headers of every answer.
func secure(h http.Header, nonce string) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+nonce+"'; script-src 'nonce-"+nonce+
		"'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}
