package proxy_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
)

func FuzzParseListen(f *testing.F) {
	for _, seed := range []string{"unix:///run/x", "unix:x", "tcp://127.0.0.1:1", "[::1]:80", "", "unix://x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		network, address, err := proxy.ParseListen(text)
		switch {
		case err != nil:
			if network != "" || address != "" {
				t.Errorf("%q: an error and %q %q", text, network, address)
			}
		case network == "unix":
			if address == "" || strings.HasPrefix(text, "unix://") && !filepath.IsAbs(address) {
				t.Errorf("%q: path %q", text, address)
			}
		case network != "tcp" || !strings.Contains(address, ":"):
			t.Errorf("%q: %q %q", text, network, address)
		}
	})
}
