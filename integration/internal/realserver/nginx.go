//go:build unix

package realserver

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// StartNginx starts nginx in front of cfg.Backend. On SIGHUP it loads its
// configuration anew and retires the connections of the old worker.
func StartNginx(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	nginx := find(tb, "nginx", "nginx")
	s := newServer(tb, cfg)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // else the worker drops to a user who cannot read the test's directory
	}
	s.write("nginx.conf", fmt.Appendf(nil, nginxConfig, user, s.dir, s.Addr, cfg.MaxStreams, cfg.Backend, "/"+strings.TrimPrefix(cfg.Only, "/"), cfg.Others))
	return s.run(nginx, "-p", s.dir, "-c", s.path("nginx.conf"), "-e", "stderr")
}

// A request that nginx cannot pass on at once is a failure here, not a retry, and
// no timeout of nginx's own ends a stream. ssl_verify_client lets the handshake
// pass and answers 400 to those without a good certificate.
const nginxConfig = `
%[1]s
daemon off;
pid %[2]s/nginx.pid;
error_log stderr warn;
worker_processes 1;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server {
		listen %[3]s ssl http2;
		http2_max_concurrent_streams %[4]d;
		ssl_certificate %[2]s/server.pem;
		ssl_certificate_key %[2]s/server.key;
		ssl_client_certificate %[2]s/ca.pem;
		ssl_verify_client on;
		ssl_protocols TLSv1.3;
		%[7]s
		location %[6]s {
			grpc_pass grpc://%[5]s;
			grpc_next_upstream off;
			grpc_read_timeout 1h;
			grpc_send_timeout 1h;
		}
	}
}
`
