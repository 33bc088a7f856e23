//go:build !linux

package tap

import "net"

// newReadyReader returns nc itself if it reads on ready, as ALTS does. grpc-go
// reads sockets that way on Linux only, so elsewhere there is nothing to keep.
func newReadyReader(nc net.Conn) readyReader {
	r, _ := nc.(readyReader)
	return r
}
