package integration_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/davidwartell/go-grpcpool"
	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/shared"
)

// soon bounds every wait for something that takes milliseconds. It is long so
// that a loaded machine does not fail a test.
const soon = 20 * time.Second

// There are no exceptions: etcd, with its REST gateway off, ends all it began.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func localhost(t *testing.T) *grpcpooltest.Certs {
	t.Helper()
	certs, err := grpcpooltest.NewCerts()
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

// mutualTLS is the factory that this module's users would make: certificates and
// an address, everything else left to the library.
func mutualTLS(t *testing.T, certs *grpcpooltest.Certs, addr string, opts ...grpcpool.FactoryOption) *grpcpool.Factory {
	t.Helper()
	factory, err := grpcpool.NewMutualTLSFactory(certs.CA.PEM, certs.Client.CertPEM, certs.Client.KeyPEM, addr,
		30*time.Second, 10*time.Second, nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return factory
}

// newPool makes a pool that is closed when the test ends. No lease may be out by
// then, so that Close has nothing to complain of.
func newPool(t *testing.T, factory grpcpool.ConnectionFactory, opts ...shared.Option) *shared.Pool {
	t.Helper()
	pool := shared.New(factory, time.Minute, opts...)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Errorf("closing the pool: %v", err)
		}
	})
	return pool
}

// within is the test's context with a deadline.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(soon)
	defer deadline.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v still not so: %s", soon, what)
		}
	}
}
