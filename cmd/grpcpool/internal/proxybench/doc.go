// Package proxybench compares "grpcpool proxy" with direct calls over mutual TLS, with a
// relay of bytes, which is the least that any process in between costs, and with a proxy
// that decodes and encodes messages. cpu-ns/op is the CPU time of all processes together.
package proxybench
