package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/davidwartell/go-grpcpool/poolz"
)

// servePage serves the pool's live page, if the configuration has an address for it,
// until stop is called.
func (d *demo) servePage(ctx context.Context) (stop func() error, err error) {
	if d.cfg.Serve == "" {
		return func() error { return nil }, nil
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", d.cfg.Serve)
	if err != nil {
		return nil, fmt.Errorf("--serve: serving the live page: %w", err)
	}
	server := &http.Server{
		Handler:           poolz.Handler([]poolz.Pool{d.pool}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if d.watcher.Serving != nil {
		d.watcher.Serving("http://" + listener.Addr().String() + "/")
	}
	return func() error {
		err := server.Close()
		if end := <-served; !errors.Is(end, http.ErrServerClosed) {
			err = errors.Join(err, end)
		}
		return err
	}, nil
}
