// Package snappy is the gRPC compressor "snappy", for programs that talk to a peer that
// uses it (Thanos, CockroachDB, the OpenTelemetry collector and others) or that want to
// send fewer bytes for little CPU time. Importing the package registers the compressor, on a client
// and on a server. A client then chooses it:
//
//	import "github.com/davidwartell/go-grpcpool/snappy"
//
//	// for one call:
//	order, err := orders.Get(ctx, request, grpc.UseCompressor(snappy.Name))
//
//	// for every call of a channel:
//	cc, err := grpc.NewClient(target, creds,
//		grpc.WithDefaultCallOptions(grpc.UseCompressor(snappy.Name)))
//
//	// for the requests of 1 KiB or more:
//	cc, err := grpc.NewClient(target, creds,
//		grpc.WithChainUnaryInterceptor(snappy.UnaryClientInterceptor(1024)))
//
// # Before you use it
//
//   - Both ends need a compressor of this name. A server without one answers
//     UNIMPLEMENTED.
//   - A grpc-go server answers in the encoding of the request. It needs no option, only
//     the import. A handler may choose another with
//     [google.golang.org/grpc.SetSendCompressor].
//   - A small message gains nothing, as the format adds 18 bytes. Send it with
//     grpc.UseCompressor("identity"), or use [UnaryClientInterceptor]. The server then
//     answers uncompressed too, however long the answer is.
//   - Data that compression would not shrink by an eighth is sent uncompressed inside the
//     format. That costs little more than its checksum.
//   - gRPC's limits on the size of a message (MaxCallRecvMsgSize, MaxRecvMsgSize) apply
//     to the decompressed size. Whatever a message claims, this package holds at most one
//     chunk (64 KiB) more than gRPC has asked for.
//   - Do not compress a secret together with text that an attacker can choose. Whoever
//     sees the length of the messages could guess the secret (CRIME, BREACH).
//
// # What is sent, and what is accepted
//
// A compressed message is a stream in the snappy framing format
// (https://github.com/google/snappy/blob/main/framing_format.txt): the stream
// identifier, then chunks of at most 64 KiB of data, each with a CRC-32C. The other Go
// packages that register "snappy" with gRPC (go-grpc-compression, dskit, Thanos,
// CockroachDB, the OpenTelemetry collector) send the same.
//
// Some senders use other formats under this name. Such a message is an [ErrFormat], whose
// text names the format: a raw snappy block (as from golang/snappy's Encode and
// snappy-java's Snappy.compress), a xerial stream (snappy-java's SnappyOutputStream), or
// an S2 stream.
//
// Every stream that a strict snappy decoder accepts is accepted. So is a chunk whose block
// uses the repeats of S2 (copies with an offset of zero), if its checksum is right and it
// declares no more data than snappy could have put into as many bytes: 64 for every 3. A
// block that declares more, such as an S2 bomb, is refused before it is decoded. What this
// package sends is always plain snappy.
//
// # If another package registers "snappy"
//
// gRPC keeps one compressor of a name for the whole program. If there is a compressor
// named "snappy" when this package is initialized, this package leaves it in place.
// [Registered] reports which one gRPC uses. Packages are initialized in the order of their
// dependencies and then of their paths, and some of them replace what they find. To be
// certain that this compressor is used, register it in an init function of the program,
// which runs after those of all packages that it imports:
//
//	func init() { encoding.RegisterCompressor(snappy.Compressor()) }
package snappy

import (
	"errors"
	"io"

	"google.golang.org/grpc/encoding"
)

// Name is the name of the compressor: grpc.UseCompressor(snappy.Name), and
// "grpc-encoding: snappy" on the wire.
const Name = "snappy"

// An error about a message, or about the use of this package, matches one of these with
// [errors.Is]; any other wraps the error of the underlying reader or writer. gRPC keeps
// only the text: the RPC ends with a status of code INTERNAL that contains it.
var (
	// ErrFormat means that a message is not in the snappy framing format. The text says
	// what format it seems to be in and what the sender should use.
	ErrFormat = errors.New("snappy: not in the snappy framing format")
	// ErrCorrupt means that a message is in the snappy framing format but is damaged,
	// cut short, or beyond the format's limits. The text says at which byte.
	ErrCorrupt = errors.New("snappy: corrupt message")
	// ErrClosed means that a reader or writer was used after its Close.
	ErrClosed = errors.New("snappy: used after Close")
)

func init() { register() }

// register leaves a compressor that is registered already in place; see the package
// documentation.
func register() {
	if encoding.GetCompressor(Name) == nil {
		encoding.RegisterCompressor(Compressor())
	}
}

// Compressor returns this package's compressor. gRPC may be using another one of the same
// name; see [Registered]. The compressor may be used concurrently.
//
// What its Compress and Decompress methods return may be used by one goroutine at a time.
// Both keep to the contracts of [io.Writer] and [io.Reader] after an error, after EOF and
// after Close, and may be closed more than once. The reader has a Close method too, which
// gRPC calls; a reader that is dropped without reaching an error or EOF is left to the
// garbage collector.
func Compressor() encoding.Compressor { return compressor{} }

// Registered reports whether gRPC uses this package's compressor for [Name]. Do not call
// it while another goroutine registers a compressor, which only init functions should do.
func Registered() bool { return encoding.GetCompressor(Name) == Compressor() }

// compressor has no state of its own; what is reused between calls is in pools.
type compressor struct{}

func (compressor) Name() string { return Name }

func (compressor) Compress(w io.Writer) (io.WriteCloser, error) {
	return &writer{enc: newEncoder(w)}, nil
}

func (compressor) Decompress(r io.Reader) (io.Reader, error) {
	return &reader{dec: newDecoder(r)}, nil
}
