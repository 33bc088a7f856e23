// Package compat tries package snappy against implementations nobody here wrote. It
// is a module of its own so that the library does not depend on them.
//
//   - Differential tests and fuzzing: golang/snappy and klauspost/compress must read
//     what snappy writes, and snappy must judge every message as golang/snappy does,
//     save for the S2 repeats that package snappy says it reads.
//   - Calls over TCP, both ways, with a program (package peer) that has
//     mostynb/go-grpc-compression and not this library. It runs in a process of its
//     own, since a process has one compressor called "snappy".
//
// There was none to try on npm: grpc-js 1.14 has a fixed list of identity, deflate
// and gzip. gRPC's C++ core, which Debian's packages have, is not known to take
// another compressor either.
package compat

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// EchoMethod is the one method of Service.
const EchoMethod = "/compat.Echo/Echo"

// Service answers with what it was sent.
var Service = grpc.ServiceDesc{
	ServiceName: "compat.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := new(wrapperspb.BytesValue)
			return m, decode(m)
		},
	}},
}
