package shared

import (
	"errors"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
)

// The connection may come between the end of an RPC and the note of it: nothing else would
// take the note back until an RPC goes well.
func TestANoteOfALossThatComesTooLateIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		f, err := grpcpool.NewFactory(server.Target(), insecure.NewCredentials(), grpcpool.WithDialOptions(grpc.WithContextDialer(server.Dial)))
		if err != nil {
			t.Fatal(err)
		}
		p := New(f, 0)
		t.Cleanup(func() { _ = p.Close() })
		if _, err := healthpb.NewHealthClient(p).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.noteAway(p.current.Load(), errors.New("no connection"))
		if s := p.Stats(); s.LastError != nil || s.State != StateReady {
			t.Errorf("the pool is %s, its last error %v", s.State, s.LastError)
		}
	})
}
