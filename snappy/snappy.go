// Package snappy is the gRPC compressor "snappy". Importing it registers it:
//
//	import "github.com/davidwartell/go-grpcpool/snappy"
//
//	client.Get(ctx, req, grpc.UseCompressor(snappy.Name)) // one call
//	grpc.WithDefaultCallOptions(grpc.UseCompressor(snappy.Name)) // every call of a channel
//
// # What goes over the wire
//
// A compressed message is a stream in the snappy framing format
// (https://github.com/google/snappy/blob/main/framing_format.txt): the stream
// identifier, then chunks of at most 64 KiB, each with a CRC-32C of its data.
// The other Go programs that register "snappy" with gRPC (go-grpc-compression,
// dskit, Thanos, CockroachDB, the OpenTelemetry collector) send the same.
//
// Some senders put another format under the same name. Such messages are
// refused with an [ErrFormat] that says what came: a raw snappy block (what
// golang/snappy's Encode and snappy-java's Snappy.compress make), snappy-java's
// own stream ("xerial", SnappyOutputStream), and an S2 stream.
//
// Everything that a strict snappy decoder reads is read, and one thing more: a chunk
// of a snappy stream whose block has S2's repeats (copies with an offset of zero), if
// it declares no more data than snappy could put into as many bytes, which is 64 for
// every 3. Its data is what S2 means, and its checksum must be right. A block that
// declares more, such as an S2 bomb, is refused before it is decoded. What is sent is
// always snappy.
//
// # What a user must know
//
//   - Both ends need a compressor under this name. A server that has none
//     answers UNIMPLEMENTED.
//   - A grpc-go server answers in the encoding of the request. It needs no
//     option, only the import; a handler may choose for itself with
//     [google.golang.org/grpc.SetSendCompressor].
//   - A message that is small gains nothing: the framing costs 18 bytes. Send it
//     with grpc.UseCompressor("identity"), or let [UnaryClientInterceptor] decide
//     by size. The server then answers uncompressed, however long its answer.
//   - Data that does not shrink by an eighth travels as it is, inside the framing,
//     and costs little more than its checksum.
//   - gRPC's limits on a message's size (MaxCallRecvMsgSize, MaxRecvMsgSize) hold
//     for the decompressed size too. This package never holds more than one chunk
//     beyond what gRPC has asked for, whatever the input claims.
//   - Compressing secrets and attacker-chosen text in one message lets whoever
//     sees its length guess the secret (CRIME, BREACH).
//
// # Another compressor of the same name
//
// gRPC keeps one compressor per name for the whole program. If there is one
// called "snappy" already when this package is initialized, it stays: a package
// that was imported for its options must not change what a program sends.
// [Registered] tells whose it is. Packages are initialized in the order of their
// dependencies and then of their paths, and some others replace what they find;
// a program that wants this one for certain says so in its own init, which runs
// after those of all packages it imports:
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

// What errors of this package answer to in [errors.Is]. An RPC ends with a
// status of code INTERNAL whose message contains the error's text, since gRPC
// keeps no more of it.
var (
	// ErrFormat: the message is not in the snappy framing format. The text says
	// what it looks like and what the sender should use.
	ErrFormat = errors.New("snappy: not in the snappy framing format")
	// ErrCorrupt: the message is in the snappy framing format but damaged, cut
	// short, or over the format's limits. The text says where.
	ErrCorrupt = errors.New("snappy: corrupt message")
	// ErrClosed: a reader or writer was used after its Close.
	ErrClosed = errors.New("snappy: used after Close")
)

func init() { register() }

// register does not replace what somebody else has registered; see the package comment.
func register() {
	if encoding.GetCompressor(Name) == nil {
		encoding.RegisterCompressor(Compressor())
	}
}

// Compressor returns this package's compressor, which need not be the one that
// gRPC uses; see [Registered]. It may be used from any goroutine.
//
// What its Compress and Decompress return belongs to one goroutine at a time.
// Both keep to the contracts of [io.Writer] and [io.Reader] after an error, after
// EOF and after Close, and may be closed more than once. The reader also has a
// Close, which gRPC calls; a reader that is dropped before it has returned an
// error is left to the garbage collector.
func Compressor() encoding.Compressor { return compressor{} }

// Registered reports whether gRPC uses this package's compressor for [Name].
// Like the registry itself, it is to be called in init functions or after them.
func Registered() bool { return encoding.GetCompressor(Name) == Compressor() }

// compressor has no state: what is worth keeping between calls is in pools.
type compressor struct{}

func (compressor) Name() string { return Name }

func (compressor) Compress(w io.Writer) (io.WriteCloser, error) {
	return &writer{enc: newEncoder(w)}, nil
}

func (compressor) Decompress(r io.Reader) (io.Reader, error) {
	return &reader{dec: newDecoder(r)}, nil
}
