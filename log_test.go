package grpcpool_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// A ping that never leaves the program says nothing, and goes on saying nothing.
func TestAPingThatSaysNothingIsLoggedEveryTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
			grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial), grpc.WithPerRPCCredentials(broken{})))
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			conn, err := f.NewConnection(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			time.Sleep(30 * time.Second)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[1], "suppressed=19") {
			t.Errorf("%d lines in half an hour, want one every ten minutes, 3:\n%s", len(lines), log.String())
		}
		for _, part := range []string{"level=WARN", `msg="grpcpool: connected, but the ping was inconclusive"`, "target=" + server.Target(), "error=", "out of tokens", "hint="} {
			if !strings.Contains(lines[0], part) {
				t.Errorf("the line does not have %q: %s", part, lines[0])
			}
		}
	})
}

// broken are credentials that fail.
type broken struct{}

func (broken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, status.Error(codes.Internal, "out of tokens")
}

func (broken) RequireTransportSecurity() bool { return false }
