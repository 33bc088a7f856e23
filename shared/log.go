package shared

import (
	"context"
	"log/slog"

	"github.com/davidwartell/go-grpcpool/internal/logline"
	"github.com/davidwartell/go-grpcpool/internal/told"
)

// newLog is the log of p's events, nil without a logger.
func (p *Pool) newLog() *logline.Log {
	log := logline.New(p.cfg.logger, "grpcpool: ")
	if log != nil {
		log.Attrs = p.logAttrs
	}
	return log
}

// logAttrs stand in every line of the log. (The name stands in the logger.)
func (p *Pool) logAttrs() []slog.Attr {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.target == "" {
		return nil
	}
	return []slog.Attr{slog.String(logline.Target, p.target)}
}

// logMistakes logs why the pool cannot be used, if it cannot.
func (p *Pool) logMistakes() {
	if p.mistakes == nil {
		return
	}
	attrs := append(p.logAttrs(), logline.Text(p.mistakes),
		slog.String(logline.Hint, "correct the arguments of shared.New; until then every Get and every call fails"))
	slog.New(p.cfg.logger.Handler().WithAttrs(attrs)).Error("grpcpool: the pool cannot be used")
}

// withLog has the factory name the pool in its own lines, and leave to the pool what the pool
// logs.
func (p *Pool) withLog(ctx context.Context) context.Context {
	return told.WithLog(ctx, told.Log{Pool: p.cfg.name, Faults: p.cfg.logger.Enabled(ctx, slog.LevelWarn)})
}
