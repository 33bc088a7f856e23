module github.com/davidwartell/go-grpcpool/conformance

go 1.26.0

require (
	github.com/davidwartell/go-grpcpool v0.0.0
	google.golang.org/grpc v1.85.0
)

require (
	github.com/google/go-cmp v0.7.0
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/davidwartell/go-grpcpool => ../
