// Package compressors has gRPC compressors side by side, this library's snappy and
// others, with the messages to measure them by and the way of a message through
// them. The scenario snappy and the benchmarks of bench/snappy share it.
package compressors

import (
	_ "github.com/mostynb/go-grpc-compression/snappy" // takes the name "snappy", whoever has it
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"

	"github.com/davidwartell/go-grpcpool/snappy"
)

// Compressor is one of those that are compared.
type Compressor struct {
	Name     string // among them; gRPC knows four of them as "snappy"
	Settings string // in words, for the report
	Codec    encoding.Compressor
}

// The names of the compressors.
const (
	Ours     = "ours"
	Mostynb  = "mostynb"
	Original = "original"
	S2Stream = "s2stream"
	Gzip     = "gzip"
)

// all are the compressors in the order of the tables. They are made when every
// import has been initialized and init has not run: the name "snappy" is mostynb's.
var all = []Compressor{
	{Ours, "this library's package snappy, as it comes", snappy.Compressor()},
	{Mostynb, "github.com/mostynb/go-grpc-compression/snappy, as it comes: golang/snappy's writers and readers in pools", encoding.GetCompressor(snappy.Name)},
	{Original, "github.com/golang/snappy as the first go-grpcpool used it: a pooled buffered writer and a pooled reader", original{}},
	{S2Stream, "github.com/klauspost/compress/s2: its stream writer in snappy mode and its reader with blocks of 64 KiB, pooled, without the goroutines that they start for every message as they come", s2Stream{}},
	{Gzip, "google.golang.org/grpc/encoding/gzip, as it comes: level -1", encoding.GetCompressor(gzip.Name)},
}

// init gives the name "snappy" back to this library, so that a program that measures
// other things too is not changed by what is compared here.
func init() { encoding.RegisterCompressor(snappy.Compressor()) }

// All returns every compressor, in the order of the tables.
func All() []Compressor { return append([]Compressor(nil), all...) }

// Named returns the compressors of these names, in the order of the tables.
func Named(names ...string) []Compressor {
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
	}
	found := make([]Compressor, 0, len(names))
	for _, c := range all {
		if wanted[c.Name] {
			found = append(found, c)
		}
	}
	return found
}
