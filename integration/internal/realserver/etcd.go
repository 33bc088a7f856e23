//go:build unix

package realserver

import (
	"strconv"
	"testing"
)

// StartEtcd starts etcd as a cluster of one. Its data survive Kill and Start, but
// not a power cut: it does not wait for the disk, which on a busy machine may take
// longer than etcd's own five seconds for a request.
func StartEtcd(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	etcd := find(tb, "etcd", "etcd-server")
	s := newServer(tb, cfg)
	peer := "http://127.0.0.1:0" // the cluster has no other member, so nobody need know the port
	return s.run(etcd,
		"--data-dir", s.path("data"),
		"--listen-client-urls", "https://"+s.Addr,
		"--advertise-client-urls", "https://"+s.Addr,
		"--cert-file", s.path("server.pem"),
		"--key-file", s.path("server.key"),
		"--client-cert-auth",
		"--trusted-ca-file", s.path("ca.pem"),
		"--max-concurrent-streams", strconv.Itoa(cfg.MaxStreams),
		"--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer,
		"--unsafe-no-fsync",
		"--heartbeat-interval", "10", "--election-timeout", "100",
		"--enable-grpc-gateway=false", // a second client, which would need a certificate too
	)
}
