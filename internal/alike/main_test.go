package alike_test

import (
	"io"
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/grpclog"
)

func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) // may only be set before gRPC is used
	debug.SetGCPercent(800)                                                      // each link has large buffers, and none lives long
	goleak.VerifyTestMain(m)
}
