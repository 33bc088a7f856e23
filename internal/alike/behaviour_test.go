package alike_test

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// behaviour is what a program asks for.
type behaviour struct {
	name string
	dial []grpc.DialOption
	call []grpc.CallOption

	plain []grpc.DialOption // of the plain channel only

	fails    int           // the server answers Unavailable to so many attempts
	deadline time.Duration // when the call has to end; 0: the state's
	context  time.Duration // the deadline of its context, if that is later
	cancels  time.Duration // when the context is cancelled; below 0: before the call; 0: never

	leavesConnectionAlone bool // count the dials, and make another call on the connection
}

func behaviours() []behaviour {
	wait := grpc.WaitForReady(true)
	return []behaviour{
		{name: "fail fast"},
		{name: "waitForReady by option", call: []grpc.CallOption{wait}},
		{name: "waitForReady by config", dial: config(`"waitForReady": true`)},
		{name: "fail fast by option against the config", dial: config(`"waitForReady": true`), call: []grpc.CallOption{grpc.WaitForReady(false)}},
		{name: "timeout by config", dial: config(`"timeout": "2s"`), deadline: 2 * time.Second, context: time.Minute},
		{name: "timeout by config, waits", dial: config(`"timeout": "2s", "waitForReady": true`), deadline: 2 * time.Second, context: time.Minute},
		{name: "timeout by context", deadline: 2 * time.Second},
		{name: "timeout by context, waits", deadline: 2 * time.Second, call: []grpc.CallOption{wait}},
		{name: "context that has ended", cancels: -1},
		{name: "cancelled after 1.5 s, waits", cancels: 1500 * time.Millisecond, call: []grpc.CallOption{wait}},
		{name: "retryPolicy", dial: config(retries)},
		{name: "retryPolicy, waits", dial: config(retries + `, "waitForReady": true`)},
		{name: "retryPolicy, the server fails twice", dial: config(retries), fails: 2},
		{name: "retryPolicy, the server fails", dial: config(retries), fails: 100},
		{name: "retries disabled", dial: append(config(retries), grpc.WithDisableRetry()), fails: 2},
		{name: "hedgingPolicy", dial: config(`"hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.1s"}`)}, // grpc-go has none, and ignores it
		{name: "credentials by dial option", dial: []grpc.DialOption{grpc.WithPerRPCCredentials(token{})}, leavesConnectionAlone: true},
		{name: "credentials by call option", call: []grpc.CallOption{grpc.PerRPCCredentials(token{})}, leavesConnectionAlone: true},
		{
			name: "credentials that fail", dial: []grpc.DialOption{grpc.WithPerRPCCredentials(token{errors.New("no token")})},
			leavesConnectionAlone: true,
		},
		{
			name: "credentials that fail, by call option", call: []grpc.CallOption{grpc.PerRPCCredentials(token{errors.New("no token")})},
			leavesConnectionAlone: true,
		},
		{
			name:                  "credentials that are Unavailable",
			dial:                  []grpc.DialOption{grpc.WithPerRPCCredentials(token{status.Error(codes.Unavailable, "no token now")})},
			leavesConnectionAlone: true,
		},
		{
			name: "credentials that are Unavailable, retryPolicy",
			dial: append(config(retries), grpc.WithPerRPCCredentials(token{status.Error(codes.Unavailable, "no token now")})),
		},
		{name: "interceptor that calls again", dial: again()},
		{name: "gzip", call: []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
		{name: "compressor that nobody knows", call: []grpc.CallOption{grpc.UseCompressor("none such")}},
	}
}

const retries = `"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.1s",` +
	` "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}`

// config is a service config that says something of every method.
func config(method string) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], ` + method + `}]}`)}
}

// token are per-RPC credentials, which fail for the call that counts if err is set.
type token struct{ err error }

func (c token) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if c.err != nil && ctx.Value(counted{}) != nil {
		return nil, c.err
	}
	return map[string]string{tokenKey: "secret"}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// again are interceptors that make a call that was Unavailable once more, as those of
// go-grpc-middleware do.
func again() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, called string, in, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := next(ctx, called, in, out, cc, opts...)
			if status.Code(err) == codes.Unavailable {
				err = next(ctx, called, in, out, cc, opts...)
			}
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, called string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := next(ctx, desc, cc, called, opts...)
			if status.Code(err) == codes.Unavailable {
				s, err = next(ctx, desc, cc, called, opts...)
			}
			return s, err
		}),
	}
}
