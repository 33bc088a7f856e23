package scale_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/grpclog"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		playRole(role)
		return
	}
	grpclog.SetLoggerV2(grpcLog) // may only be set before gRPC is used
	goleak.VerifyTestMain(m)
}

// grpcLog keeps what is logged through gRPC's log.
var grpcLog = &logRecorder{LoggerV2: grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)}

type logRecorder struct {
	grpclog.LoggerV2

	mu       sync.Mutex // guards warnings
	warnings []string
}

func (r *logRecorder) Warning(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, fmt.Sprint(args...))
}

func (r *logRecorder) Warningln(args ...any) { r.Warning(args...) }

// count counts the warnings with text in them.
func (r *logRecorder) count(text string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.warnings {
		if strings.Contains(w, text) {
			n++
		}
	}
	return n
}
