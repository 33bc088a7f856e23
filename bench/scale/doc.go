// Package scale measures channels of go-grpcpool/scale beside plain ones, with
// one server in this process. "make -C bench scale" runs it.
package scale
