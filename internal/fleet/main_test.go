package fleet_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/grpclog"
)

var (
	fleetFlag  = flag.String("fleet", "small", "the fleets to run: small, medium, large (minutes) or full (an hour or more)")
	reportFlag = flag.String("fleet.report", "", "the file that TestTheReport writes")
	seedFlag   = flag.Uint64("fleet.seed", 1, "seed of what the simulation chooses, and of the clients' pauses")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if _, ok := sizes[*fleetFlag]; !ok {
		fmt.Fprintf(os.Stderr, "fleet: -fleet %q: want small, medium, large or full\n", *fleetFlag)
		os.Exit(2)
	}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) // may only be set before gRPC is used
	goleak.VerifyTestMain(m)
}
