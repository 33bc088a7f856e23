package poolz

import (
	"net/http"
	"net/netip"
	"strings"
)

// refuseRemote returns why a request is refused, or "" if it comes from this machine and
// is meant for it.
func refuseRemote(r *http.Request) string {
	const hint = "; the program can allow it with poolz.WithAccess"
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return "this page answers requests from this machine only" + hint
	}
	if !isLoopbackHost(r.Host) {
		// Otherwise a site whose name resolves to 127.0.0.1 could read the page in a
		// browser on this machine (DNS rebinding).
		return "the host name of the request does not mean this machine: use localhost or 127.0.0.1" + hint
	}
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if len(r.Header.Values(header)) > 0 {
			return "the request came through a proxy, so anybody could have sent it" + hint
		}
	}
	return ""
}

// isLoopbackHost reports whether the Host of a request, with or without a port, is a name
// or address that can only mean this machine (RFC 6761, section 6.3).
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

// secure sets the security headers, which every answer has.
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
