//go:build unix

package realserver

import (
	"fmt"
	"testing"
)

// StartHAProxy starts haproxy in front of cfg.Backend.
func StartHAProxy(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	haproxy := find(tb, "haproxy", "haproxy")
	s := newServer(tb, cfg)
	s.write("haproxy.cfg", fmt.Appendf(nil, haproxyConfig, cfg.MaxStreams, s.Addr, s.dir, cfg.Backend))
	return s.run(haproxy, "-db", "-f", s.path("haproxy.cfg"))
}

// No timeout of haproxy's own ends a stream.
const haproxyConfig = `
global
	tune.h2.max-concurrent-streams %[1]d
defaults
	mode http
	retries 0
	timeout connect 5s
	timeout client 1h
	timeout server 1h
frontend grpc
	bind %[2]s ssl crt %[3]s/both.pem alpn h2 ca-file %[3]s/ca.pem verify required ssl-min-ver TLSv1.3
	default_backend grpc
backend grpc
	server one %[4]s proto h2
`
