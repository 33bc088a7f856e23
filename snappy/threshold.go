package snappy

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// UnaryClientInterceptor returns an interceptor that compresses the requests of unary
// calls that are at least minSize bytes long when encoded, and sends shorter ones
// uncompressed. If minSize is 0 or less, every request is compressed. The interceptor may
// be used concurrently, and for several channels.
//
//	grpc.WithChainUnaryInterceptor(snappy.UnaryClientInterceptor(1024))
//
// It applies to calls that name the compressor "snappy" or none. A call that names another
// one with grpc.UseCompressor, as a call option or as a default of the channel, keeps it.
// The size is that of [proto.Size], which does not encode the message. A request that is
// not a protobuf message is compressed.
//
// A grpc-go server answers in the encoding of the request, so the answer to a short
// request is not compressed, unless the handler calls [grpc.SetSendCompressor].
//
// There is no such interceptor for streams, because all messages of a stream have the same
// encoding. Choose it with grpc.UseCompressor when you open the stream.
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
