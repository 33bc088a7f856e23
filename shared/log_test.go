package shared_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// outage is one of half a minute in the life of a pool, and what is logged.
func outage(t *testing.T, f []grpcpool.FactoryOption, p ...shared.Option) {
	t.Helper()
	server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
	factory, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), append(f, grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))...)
	if err != nil {
		t.Fatal(err)
	}
	pool := shared.New(factory, 0, append(p, shared.WithName("orders"))...)
	defer pool.Close()
	defer client{cc: pool, get: pool.Get}.use()()
	time.Sleep(10 * time.Second)
	server.Stop()
	time.Sleep(30 * time.Second)
	server.Start()
	time.Sleep(10 * time.Second)
}

// Whoever has a logger logs: the pool if it has one, and otherwise the channel of the factory.
func TestAnOutageIsLoggedByWhoeverHasALogger(t *testing.T) {
	for name, has := range map[string]struct{ pool, factory bool }{"nobody": {}, "the pool": {pool: true}, "the factory": {factory: true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ofPool, ofFactory := newRecorder(), newRecorder()
				var f []grpcpool.FactoryOption
				var p []shared.Option
				if has.factory {
					f = append(f, grpcpool.WithLogger(slog.New(ofFactory)))
				}
				if has.pool {
					p = append(p, shared.WithLogger(slog.New(ofPool)))
				}
				outage(t, f, p...)
				got := fmt.Sprintf("pool %v, factory %v", messages(ofPool), messages(ofFactory))
				want := map[string]string{
					"nobody":      "pool [], factory []",
					"the pool":    "pool [grpcpool: no connection, grpcpool: connected again], factory []",
					"the factory": "pool [], factory [scale: no connection, scale: connected again]",
					"both":        "pool [grpcpool: no connection, grpcpool: connected again], factory []",
				}[name]
				if got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		})
	}
}

func messages(r recorder) string {
	lines := r.from(slog.LevelInfo)
	all := make([]string, len(lines))
	for i, l := range lines {
		all[i] = l.msg
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// A factory that never reaches its server logs nothing at Warn: its error says it.
func TestAFactorysErrorsAreNotLoggedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newRecorder()
		factory, err := grpcpool.NewFactory("passthrough:///nobody", insecure.NewCredentials(), grpcpool.WithLogger(slog.New(log)),
			grpcpool.WithDialOptions(grpc.WithContextDialer(grpcpooltest.NewLink(nil).Dial)))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := factory.NewConnection(t.Context()); !errors.Is(err, grpcpool.ErrConnectionNotOK) {
				t.Errorf("the error is %v", err)
			}
		}
		synctest.Wait()
		if lines := log.from(slog.LevelInfo); len(lines) > 0 {
			t.Errorf("logged: %v", lines)
		}
		lines := log.from(slog.LevelDebug)
		if len(lines) != 10 || lines[9].attrs["target"] != "passthrough:///nobody" || lines[9].attrs["error"] == "" {
			t.Errorf("the details are %v", lines)
		}
	})
}

// token is a secret that every RPC sends.
type token string

func (s token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(s)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

func TestMetadataIsNeverLogged(t *testing.T) {
	const secret = "hunter2"
	for _, tc := range logFaults {
		if tc.warn > 5 {
			continue // it lasts, and has nothing of its own
		}
		t.Run(tc.name, func(t *testing.T) {
			tc.dial = append(tc.dial, grpc.WithPerRPCCredentials(token(secret)))
			tc.metadata = metadata.Pairs("password", secret, "x-bin", secret)
			for _, on := range []string{leases, channel} {
				log := run(t, tc, on)
				for _, l := range log.from(slog.LevelDebug) {
					if strings.Contains(l.String(), secret) {
						t.Errorf("a secret is logged: %v", l)
					}
				}
			}
		})
	}
}
