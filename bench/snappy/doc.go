// Package snappy measures the compressor of go-grpcpool beside others: CPU time of
// a message's round trip, memory kept by idle pooled state, and echo calls over
// loopback. Everything is in its tests; "make snappy" in bench/ runs it. The round
// trip alone is also a scenario of cmd/sidebyside, in the same rounds as all else.
package snappy
