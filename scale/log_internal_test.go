package scale

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/resolver"
)

func TestThatAChannelCannotScaleIsOneLineThatSaysWhatToDo(t *testing.T) {
	var log bytes.Buffer
	ch := newChannel(&clientOptions{logger: slog.New(slog.NewTextHandler(&log, nil))})
	ch.target = "dns:///api:443"
	s := &subchannel{policy: &policy{channel: ch}}
	s.addrs.Store(&[]resolver.Address{{Addr: "10.0.0.1:443"}})
	s.warnUntapped()
	s.warnUntapped()
	for _, part := range []string{"level=WARN", `msg="scale: the connections cannot be watched`, "target=dns:///api:443", "address=10.0.0.1:443", "error=", "hint="} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the line does not have %q: %s", part, log.String())
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines, want one", n)
	}
}
