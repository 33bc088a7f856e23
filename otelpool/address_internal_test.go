package otelpool

import "testing"

func TestTheServerAddressIsTheHostOfTheTarget(t *testing.T) {
	for target, want := range map[string]string{
		"":                                  "",
		"localhost:8080":                    "localhost",
		"orders.example":                    "orders.example",
		"10.0.0.1:443":                      "10.0.0.1",
		"[2001:db8::1]:443":                 "2001:db8::1",
		"[2001:db8::1]":                     "2001:db8::1",
		"2001:db8::1":                       "2001:db8::1",
		":443":                              "",
		"dns:///orders.example:443":         "orders.example",
		"dns://8.8.8.8/orders.example:443":  "orders.example",
		"dns:orders.example:443":            "orders.example",
		"dns:///orders.example":             "orders.example",
		"passthrough:///orders.example:443": "orders.example",
		"xds:///orders":                     "orders",
		"consul://registry:8500/orders":     "orders",
		"unix:///run/orders.sock":           "/run/orders.sock",
		"unix:/run/orders.sock":             "/run/orders.sock",
		"unix:orders.sock":                  "orders.sock",
		"unix-abstract:orders":              "orders",
		"ipv4:10.0.0.1:443":                 "10.0.0.1",
		"ipv4:10.0.0.1:443,10.0.0.2:443":    "10.0.0.1:443,10.0.0.2:443",
	} {
		if got := serverAddress(target); got != want {
			t.Errorf("%q has the address %q, want %q", target, got, want)
		}
	}
}
