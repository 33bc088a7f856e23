package grpcpool

import (
	"context"
	"errors"
	"log/slog"
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

const hintMute = "make the health service answer, with any status; or set a ping that the server answers (WithPing)"

// noteMute logs that the health service has stopped answering though the connection lives, and
// that it answers again.
func (f *Factory) noteMute(ctx context.Context, err error) {
	var unsure *answer.NoVerdictError
	mute := errors.As(err, &unsure) && unsure.Alive
	if !mute && err != nil || mute == f.mute.Load() || f.mute.Swap(mute) == mute {
		return
	}
	if mute {
		f.log(ctx, slog.LevelWarn, "the connection is good, but the health service does not answer", logline.Text(err), slog.String(logline.Hint, hintMute))
		return
	}
	f.log(ctx, slog.LevelInfo, "the health service answers again")
}

// unsureEvery is how often it is logged that pings say nothing.
const unsureEvery = 10 * time.Minute

// noteUnsure logs that a channel is used although its ping said nothing about it.
func (f *Factory) noteUnsure(ctx context.Context, err error) {
	last, now := f.unsure.Load(), time.Now().UnixNano()
	if now-last < int64(unsureEvery) && last != 0 || !f.unsure.CompareAndSwap(last, now) {
		return
	}
	f.log(ctx, slog.LevelWarn, "connected, but the ping said nothing about the connection", logline.Text(err),
		slog.String(logline.Hint, "check the credentials and interceptors that the ping is sent with, or set another ping (WithPing)"))
}
