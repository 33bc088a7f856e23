package snappy_test

import (
	"google.golang.org/grpc/encoding"

	"github.com/davidwartell/go-grpcpool/bench/compressors"
)

// peer is one compressor under test. It is registered with gRPC as "bench-" and its
// name, since four of them would all be called "snappy".
type peer struct {
	encoding.Compressor

	name string
}

func (p peer) Name() string { return "bench-" + p.name }

var peers = func() []peer {
	of := compressors.All()
	all := make([]peer, 0, len(of))
	for _, c := range of {
		all = append(all, peer{c.Codec, c.Name})
	}
	return all
}()

func init() {
	for _, p := range peers {
		encoding.RegisterCompressor(p)
	}
}

// payload is a kind of message, and its messages.
type payload struct {
	name     string
	messages [][]byte
}

var payloads = func() []payload {
	kinds := compressors.Payloads()
	all := make([]payload, 0, len(kinds))
	for _, p := range kinds {
		all = append(all, payload{p.Name, p.Messages()})
	}
	return all
}()
