package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// proxy is toxiproxy in this process, between the client and one server.
type proxy struct {
	proxy *toxiproxy.Proxy
}

// newProxy begins to forward a port of loopback to upstream ("host:port").
func newProxy(upstream string) (*proxy, error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &proxy{toxiproxy.NewProxy(server, "faults", "127.0.0.1:0", upstream)}
	if err := p.proxy.Start(); err != nil {
		return nil, fmt.Errorf("faults: toxiproxy: %w", err)
	}
	return p, nil
}

// addr is where the proxy listens, "host:port".
func (p *proxy) addr() string { return p.proxy.Listen }

// inject adds a toxic, in both directions where that makes a difference.
func (p *proxy) inject(f faultStep) error {
	attributes := map[string]any{}
	directions := []string{"upstream", "downstream"}
	switch f.arg {
	case toxicTimeout, toxicReset:
		attributes[toxicTimeout] = 0 // nothing passes until the toxic is removed; reset at once
	case toxicLatency:
		attributes[toxicLatency] = f.delay.Milliseconds()
	case toxicBandwidth:
		attributes["rate"] = f.amount
	}
	for _, direction := range directions {
		toxic, err := json.Marshal(map[string]any{"type": f.arg, "stream": direction, "attributes": attributes})
		if err != nil {
			return fmt.Errorf("faults: %w", err)
		}
		if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(string(toxic))); err != nil {
			return fmt.Errorf("faults: toxiproxy: %s: %w", toxic, err)
		}
	}
	return nil
}

// heal removes every toxic.
func (p *proxy) heal() { p.proxy.Toxics.ResetToxics(context.Background()) }

// stop closes the proxy and every connection through it.
func (p *proxy) stop() { p.proxy.Stop() }
