package snappy

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// UnaryClientInterceptor compresses the requests of unary calls by size: those of
// at least minSize bytes, encoded, go out under [Name], shorter ones as they are.
//
//	grpc.WithChainUnaryInterceptor(snappy.UnaryClientInterceptor(1024))
//
// A call that names another compressor (grpc.UseCompressor, as a call option or a
// default one) keeps it; one that names "snappy" or none is decided here. The size
// is [proto.Size], which walks the message without encoding it; a request that is
// no protobuf message counts as large.
//
// Two things follow from how gRPC works. A grpc-go server mirrors the request's
// encoding, so that a short request gets an uncompressed answer unless the handler
// calls [grpc.SetSendCompressor]. And a stream has one encoding for all of its
// messages, so that there is no such interceptor for streams: choose with
// grpc.UseCompressor when opening one.
func UnaryClientInterceptor(minSize int) grpc.UnaryClientInterceptor {
	large := grpc.UseCompressor(Name)
	small := grpc.UseCompressor(encoding.Identity)
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		chosen := large
		switch asked := compressorOf(opts); {
		case asked != "" && asked != Name:
			return invoke(ctx, method, req, reply, cc, opts...)
		case isBelow(req, minSize):
			chosen = small
		case asked == Name:
			return invoke(ctx, method, req, reply, cc, opts...)
		}
		// Clipped, so that append copies: opts may be the channel's.
		return invoke(ctx, method, req, reply, cc, append(slices.Clip(opts), chosen)...)
	}
}

// compressorOf returns the compressor that opts name; the last one counts, as in
// gRPC. "" means none.
func compressorOf(opts []grpc.CallOption) string {
	name := ""
	for _, o := range opts {
		if c, ok := o.(grpc.CompressorCallOption); ok {
			name = c.CompressorType
		}
	}
	return name
}

// isBelow reports whether req is a protobuf message of fewer than minSize bytes.
func isBelow(req any, minSize int) bool {
	switch m := req.(type) {
	case proto.Message:
		return proto.Size(m) < minSize
	case protoadapt.MessageV1: // generated before 2020, or by gogo
		return proto.Size(protoadapt.MessageV2Of(m)) < minSize
	default:
		return false
	}
}
