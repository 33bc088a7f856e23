package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"
)

// One provider may serve channels to many servers. The end of each certificate is told
// once, however often the server is connected to.
func TestTheEndsOfManyServersCertificatesAreToldOnceEach(t *testing.T) {
	const servers = 1000
	var log bytes.Buffer
	p := &Provider{settings: settings{logger: slog.New(slog.NewTextHandler(&log, nil))}}
	begin := time.Now()
	for _, now := range []time.Time{begin, begin.Add(40 * time.Minute), begin.Add(41 * time.Minute)} {
		for i := range servers {
			leaf := &x509.Certificate{
				Subject:      pkix.Name{CommonName: fmt.Sprintf("server%d", i)},
				SerialNumber: big.NewInt(int64(i)),
				NotBefore:    begin,
				NotAfter:     begin.Add(time.Hour),
			}
			p.sawServer(&tls.ConnectionState{
				PeerCertificates: []*x509.Certificate{leaf},
				VerifiedChains:   [][]*x509.Certificate{{leaf}},
			}, now)
		}
	}
	if n := strings.Count(log.String(), "the server's certificate has a third of its life left"); n != servers {
		t.Errorf("%d warnings for %d servers", n, servers)
	}
}
