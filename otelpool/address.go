package otelpool

import (
	"net"
	"strings"
)

// serverAddress returns the host in a gRPC target (see "gRPC Name Resolution"), or the
// path of a Unix socket: the target without the scheme, the authority of the resolver, and
// the port.
func serverAddress(target string) string {
	endpoint := target
	if scheme, rest, ok := strings.Cut(target, "://"); ok {
		_, endpoint, ok = strings.Cut(rest, "/")
		switch {
		case scheme == "unix":
			return "/" + endpoint
		case !ok:
			endpoint = rest // a target with no authority and no path
		}
	} else if scheme, rest, ok := strings.Cut(target, ":"); ok {
		switch scheme {
		case "unix", "unix-abstract":
			return rest
		case "dns", "passthrough", "ipv4", "ipv6", "xds":
			endpoint = rest
		}
	}
	if host, _, err := net.SplitHostPort(endpoint); err == nil {
		return host
	}
	return strings.Trim(endpoint, "[]")
}
