package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/davidwartell/go-grpcpool/examples/internal/trial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestItAsksAServerForItsHealth(t *testing.T) {
	server := trial.Server(t)
	if got, want := trial.Main(t, main, "-address", server.Addr()), "SERVING <nil>\n"; got != want {
		t.Errorf("it printed %q, want %q", got, want)
	}
}
