package grpcpool

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/davidwartell/go-grpcpool/internal/answer"
	"github.com/davidwartell/go-grpcpool/internal/logline"
	"github.com/davidwartell/go-grpcpool/internal/told"
)

// log writes a line. ctx is that of a pool's call, if the factory belongs to one.
func (f *Factory) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	if !f.logger.Enabled(ctx, level) {
		return
	}
	all := make([]slog.Attr, 0, len(attrs)+2)
	if pool := told.LogOf(ctx).Pool; pool != "" {
		all = append(all, slog.String(logline.Pool, pool))
	}
	all = append(append(all, slog.String(logline.Target, f.target)), attrs...)
	f.logger.LogAttrs(ctx, level, "grpcpool: "+message, all...)
}

// logSwitch decides who logs what happens to a channel that is made with ctx. It is nil if a
// pool does.
func logSwitch(ctx context.Context) *logline.Switch {
	if told.LogOf(ctx).Faults {
		return nil
	}
	return new(logline.Switch)
}

// noteMute logs that the health service has stopped answering though the connection lives, and
// that it answers again. It has to be without an answer twice: the first time may be the
// beginning of an outage, which is logged by others.
func (f *Factory) noteMute(ctx context.Context, err error) {
	var unsure *answer.NoVerdictError
	if mute := errors.As(err, &unsure) && unsure.Alive; !mute {
		if err == nil && f.mute.Swap(false) && f.muteTold.Swap(false) {
			f.log(ctx, slog.LevelInfo, "the health service answers again")
		}
		return
	}
	if again := f.mute.Swap(true); !again || errors.Is(err, errAlive) || f.muteTold.Swap(true) { // errAlive: it was not asked
		return
	}
	text, _ := strings.CutSuffix(err.Error(), "; "+adviceMute)
	f.log(ctx, slog.LevelWarn, "connected, but the health service is silent", logline.Text(errors.New(text)), slog.String(logline.Hint, adviceMute))
}

// noteUnsure logs that a channel is used although its ping said nothing about it.
func (f *Factory) noteUnsure(ctx context.Context, err error) {
	suppressed, tell := f.unsure.Note(time.Now(), 1)
	if !tell {
		return
	}
	attrs := []slog.Attr{
		logline.Text(err),
		slog.String(logline.Hint, "check the credentials and interceptors that the ping is sent with, or set another ping (WithPing)"),
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int(logline.Suppressed, suppressed))
	}
	f.log(ctx, slog.LevelWarn, "connected, but the ping was inconclusive", attrs...)
}
