// Package proxybench measures "grpcpool proxy" beside the direct way over mutual TLS, beside
// a relay of bytes, which is what any process in between costs at the least, and beside
// a proxy that decodes and encodes messages. cpu-ns/op is what all their processes use
// together.
package proxybench
