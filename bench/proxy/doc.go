// Package proxy measures "grpcpool proxy" beside the direct way, over mutual TLS, and
// beside a proxy that decodes and encodes messages. All run in this process, so
// cpu-ns/op is what client, proxy and server use together.
package proxy
