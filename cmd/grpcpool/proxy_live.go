package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/davidwartell/go-grpcpool/cmd/grpcpool/internal/proxy"
	"github.com/davidwartell/go-grpcpool/poolz"
	"github.com/davidwartell/go-grpcpool/shared"
)

// checkLive requires a loopback address, since the page shows which server is called
// and with which certificate.
func checkLive(address string) error {
	if address == "" {
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("--live is %q; it must be a loopback address and port, such as 127.0.0.1:9901", address)
	}
	return nil
}

// live serves the live page of a proxy, until stop.
func live(ctx context.Context, flags *proxyFlags, server *proxy.Server) (stop func(), err error) {
	if flags.live == "" {
		return func() {}, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", flags.live)
	if err != nil {
		return nil, fmt.Errorf("proxy: --live: %w", err)
	}
	flags.Logger.Info("live page", "url", "http://"+l.Addr().String()+"/")
	s := &http.Server{Handler: liveMux(server), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			flags.Logger.Warn("the live page stopped", "error", err)
		}
	}()
	return func() {
		_ = s.Close() // readers are cut off
		<-served
	}, nil
}

func liveMux(server *proxy.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", poolz.Handler([]poolz.Pool{livePool{server}}))
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(server.Stats()) // fails only if the reader is gone
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_ = server.WriteMetrics(w) // as above
	})
	return loopbackOnly(mux)
}

// livePool is the current pool of the proxy.
type livePool struct{ server *proxy.Server }

// Stats implements poolz.Pool.
func (l livePool) Stats() shared.Stats { return l.server.Pool().Stats() }

// Holders implements poolz.Pool.
func (l livePool) Holders() []shared.Holder { return l.server.Pool().Holders() }

// loopbackOnly refuses requests for other host names: otherwise a web site that points
// its name at 127.0.0.1 could read the page (DNS rebinding).
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		ip, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
			http.Error(w, "grpcpool proxy: this page is served for localhost and 127.0.0.1 only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
