package snappy

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// describeFormat says what format a message seems to be in that does not begin with the
// stream identifier, and what its sender should do. head is its first bytes, at most ten.
func describeFormat(head []byte) string {
	const remedy = "the sender must use the framing format"
	s := string(head)
	switch {
	case strings.HasPrefix(s, "\x82SNAPPY\x00"):
		return "the message is a xerial stream, as snappy-java's SnappyOutputStream writes; " +
			remedy + " (SnappyFramedOutputStream)"
	case s == "\xff\x06\x00\x00S2sTwO":
		return "the message is an S2 stream; " + remedy + " (s2.WriterSnappyCompat)"
	case len(s) > headerLen && s[0] == chunkStreamID && s[2:headerLen] == "\x00\x00":
		return fmt.Sprintf("the stream identifier is %q, not %q", s, streamID)
	case looksRaw(head):
		return "the message looks like a raw snappy block without framing, as snappy.Encode and Snappy.compress write; " +
			remedy + " (snappy.NewBufferedWriter, SnappyFramedOutputStream)"
	default:
		return fmt.Sprintf("the message begins with the bytes % x; %s", head, remedy)
	}
}

// looksRaw reports whether head may be the beginning of a raw block: a length, then a
// literal that is not longer. The first operation cannot be a copy, as there is nothing to
// copy yet.
func looksRaw(head []byte) bool {
	length, n := binary.Uvarint(head)
	if n <= 0 || length > 1<<32-1 {
		return false
	}
	if length == 0 || n == len(head) {
		return n == len(head)
	}
	tag := head[n]
	return tag&3 == tagLiteral && (tag>>2 >= 60 || uint64(tag>>2) < length)
}
