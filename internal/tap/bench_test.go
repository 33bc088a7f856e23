package tap_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool/internal/tap"
)

// BenchmarkRPC is a unary call over loopback with and without the tap. Compare
// the two of a pair in one run; the machine's noise is larger than the tap.
func BenchmarkRPC(b *testing.B) {
	local := localhost(b)
	for _, tr := range []struct {
		name           string
		server, client credentials.TransportCredentials
	}{
		{"plain", insecure.NewCredentials(), insecure.NewCredentials()},
		{"TLS", serverTLS(b, local), credentials.NewTLS(clientTLS(b, local, local.Client))},
	} {
		for _, tapped := range []bool{false, true} {
			name := tr.name + "/without"
			client := tr.client
			if tapped {
				name = tr.name + "/with"
				client = tap.Credentials(client, tap.New(tap.Events{}))
			}
			b.Run(name, func(b *testing.B) {
				_, addr := serve(b, "tcp", grpc.Creds(tr.server))
				cc := dial(b, addr, grpc.WithTransportCredentials(client))
				health := healthpb.NewHealthClient(cc)
				ctx := testContext(b)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRead is what one read of 32 KiB costs above the connection's own.
func BenchmarkRead(b *testing.B) {
	buf := make([]byte, 32<<10)
	for i := 0; i < len(buf); i += 16 << 10 {
		copy(buf[i:], []byte{0, 0x3f, 0xf7, 0, 0, 0, 0, 0, 3}) // DATA, 16 KiB with its header
	}
	conn := tap.New(tap.Events{}).Wrap(&endless{}, nil)
	if _, err := conn.Read([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}); err != nil { // SETTINGS come first
		b.Fatal(err)
	}
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// endless is a connection that leaves in the buffer what is there.
type endless struct{ script }

func (*endless) Read(b []byte) (int, error) { return len(b), nil }
