// Package handshake tells how far the dials of a channel have come, by watching the
// handshakes of its credentials.
package handshake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"

	"github.com/davidwartell/go-grpcpool/scale"
)

// Progress remembers how far the handshakes of one channel have come, so
// that a dial that reaches its deadline can say what it was waiting for. Its zero value is
// ready for use.
type Progress struct {
	mu       sync.Mutex // guards what follows
	accepted bool       // by any address, ever
	stage    stage
	peer     string
	last     error // of the last handshake that failed
}

type stage int

const (
	stageDialling    stage = iota // no transport connection yet
	stageHandshaking              // transport connected, credentials under way
	stageSettings                 // handshake done, waiting for HTTP/2 SETTINGS
)

func (p *Progress) set(s stage, peer net.Addr, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage = s
	p.accepted = p.accepted || s == stageHandshaking
	if peer != nil {
		p.peer = peer.String()
	}
	if err != nil {
		p.last = err
	}
}

// Reached reports whether an address has accepted a connection.
func (p *Progress) Reached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Explain wraps the error that ended a dial with what the dial was waiting for.
func (p *Progress) Explain(end error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var waiting string
	switch p.stage {
	case stageDialling:
		waiting = "no address has accepted a connection"
	case stageHandshaking:
		waiting = p.peer + " accepted the connection but did not finish the handshake"
	case stageSettings:
		waiting = p.peer + " accepted the connection but did not begin HTTP/2 (no SETTINGS)"
	}
	if p.last != nil {
		return fmt.Errorf("%s: %w (last handshake: %w)", waiting, end, p.last)
	}
	return fmt.Errorf("%s: %w", waiting, end)
}

// Watch returns creds that report their handshakes to p, and verify serverName in place
// of the authority unless it is "".
func (p *Progress) Watch(creds credentials.TransportCredentials, serverName string) credentials.TransportCredentials {
	w := watchedCredentials{creds, p, serverName}
	if x, ok := creds.(interface{ UsesXDS() bool }); ok {
		// grpc-go's xDS policies look for this method on the channel's credentials.
		return xdsCredentials{w, x.UsesXDS()}
	}
	return w
}

type watchedCredentials struct {
	credentials.TransportCredentials

	progress   *Progress
	serverName string
}

// Replacer tells package scale who replaces the connections; see package identity.
func (w watchedCredentials) Replacer() *scale.Replacer {
	if r, ok := w.TransportCredentials.(interface{ Replacer() *scale.Replacer }); ok {
		return r.Replacer()
	}
	return nil
}

func (w watchedCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if w.serverName != "" {
		authority = w.serverName
	}
	w.progress.set(stageHandshaking, raw.RemoteAddr(), nil)
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	switch {
	case err == nil:
		w.progress.set(stageSettings, nil, nil)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// The stage is more telling.
	default:
		w.progress.set(stageDialling, nil, err)
	}
	return conn, info, err
}

func (w watchedCredentials) Clone() credentials.TransportCredentials {
	return watchedCredentials{w.TransportCredentials.Clone(), w.progress, w.serverName}
}

type xdsCredentials struct {
	watchedCredentials

	usesXDS bool
}

func (x xdsCredentials) UsesXDS() bool { return x.usesXDS }

func (x xdsCredentials) Clone() credentials.TransportCredentials {
	return xdsCredentials{watchedCredentials{x.TransportCredentials.Clone(), x.progress, x.serverName}, x.usesXDS}
}
