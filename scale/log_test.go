package scale_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/davidwartell/go-grpcpool/grpcpooltest"
	"github.com/davidwartell/go-grpcpool/scale"
)

// written is what a logger has written.
type written struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (w *written) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(line)
}

// option has a channel write there, from a level on.
func (w *written) option(level slog.Level) grpc.DialOption {
	return scale.WithLogger(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})))
}

// want fails unless exactly these lines were written since the last want, each of which has
// these parts.
func (w *written) want(t *testing.T, lines ...[]string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := strings.FieldsFunc(w.text.String(), func(r rune) bool { return r == '\n' })
	w.text.Reset()
	if len(got) != len(lines) {
		t.Errorf("%d lines, want %d:\n%s", len(got), len(lines), strings.Join(got, "\n"))
		return
	}
	for i, parts := range lines {
		for _, part := range parts {
			if !strings.Contains(got[i], part) {
				t.Errorf("the line does not have %q: %s", part, got[i])
			}
		}
	}
}

// callOnce makes a call that waits for no longer than a second.
func (c *channel) callOnce() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := c.stub.EmptyCall(ctx, &testpb.Empty{})
	return err
}

func TestANameThatCannotBeResolvedIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		var log written
		r := manual.NewBuilderWithScheme("names")
		r.BuildCallback = func(resolver.Target, resolver.ClientConn, resolver.BuildOptions) {}
		c := newChannel(t, "names:///api", grpc.WithContextDialer(server.Dial), grpc.WithResolvers(r), log.option(slog.LevelInfo))
		c.Connect()
		for range 100 {
			r.CC().ReportError(errors.New("no such\nname\u202e"))
			if err := c.callOnce(); err == nil {
				t.Fatal("a call to nowhere")
			}
			time.Sleep(time.Second)
		}
		log.want(t, []string{"level=WARN", `msg="scale: no connection"`, "target=names:///api", `no such name\\u202e`, "hint="})
		r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: "a"}}})
		for range 10 {
			if err := c.callOnce(); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		log.want(t, []string{"level=INFO", `msg="scale: connected again"`, "target=names:///api", "outage=1m40"})
	})
}

func TestANameWithoutAddressesIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log written
		r := manual.NewBuilderWithScheme("names")
		r.InitialState(resolver.State{})
		c := newChannel(t, "names:///api", grpc.WithResolvers(r), log.option(slog.LevelInfo))
		for range 10 {
			if err := c.callOnce(); err == nil {
				t.Fatal("a call to nowhere")
			}
			time.Sleep(time.Second)
		}
		log.want(t, []string{"level=WARN", `msg="scale: no connection"`, "target=names:///api", "zero addresses", "hint="})
	})
}

// The other address does, so nothing is wrong for callers.
func TestAnAddressThatIsRefusedIsADetail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		for level, lines := range map[slog.Level][][]string{
			slog.LevelInfo: nil,
			slog.LevelDebug: {
				{"level=DEBUG", `msg="scale: connection failed"`, "target=two:///api", "address=bad", "error="},
				{"level=DEBUG", `msg="scale: connection dialled"`, "target=two:///api", "address=good"},
			},
		} {
			var log written
			r := manual.NewBuilderWithScheme("two")
			r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: "bad"}, {Addr: "good"}}})
			c := newChannel(t, "two:///api", grpc.WithResolvers(r), log.option(level), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				if address == "bad" {
					return nil, &net.OpError{Op: "dial", Net: "memory", Err: net.ErrClosed}
				}
				return server.Dial(ctx, address)
			}))
			for range 10 {
				if err := c.callOnce(); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
			}
			log.want(t, lines...)
		}
	})
}

func TestAnIdleChannelSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory())
		var log written
		c := newChannel(t, server.Target(), grpc.WithContextDialer(server.Dial), grpc.WithIdleTimeout(time.Minute), log.option(slog.LevelInfo))
		for range 3 {
			if err := c.callOnce(); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Minute)
		}
		server.Stop()
		if err := c.callOnce(); err == nil {
			t.Error("a call to nobody")
		}
		synctest.Wait()
		log.want(t, []string{"level=WARN", `msg="scale: no connection"`})
		time.Sleep(10 * time.Minute) // idle, without a connection
		server.Start()
		if err := c.callOnce(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		log.want(t, []string{"level=INFO", `msg="scale: connected again"`, "outage=10m0s"})
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		log.want(t)
	})
}

func TestALineThatIsHeldIsWrittenWhenTheChannelIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(), grpcpooltest.WithStreamLimit(1))
		var log written
		c := newChannel(t, server.Target(), grpc.WithContextDialer(server.Dial), scale.WithMaxConnections(1), log.option(slog.LevelInfo))
		if _, err := c.stub.FullDuplexCall(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.callOnce(); err == nil {
			t.Fatal("a call without a stream")
		}
		synctest.Wait()
		log.want(t)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		log.want(t, []string{"level=WARN", `msg="scale: a call ended before it had a stream"`, "hint=\"raise the server's limit"})
		time.Sleep(time.Hour)
		log.want(t)
	})
}
