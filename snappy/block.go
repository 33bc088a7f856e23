package snappy

import "encoding/binary"

// A block is what a compressed chunk holds after its checksum: the length of the
// data as a varint, then operations, each a literal or a copy of earlier output
// (https://github.com/google/snappy/blob/main/format_description.txt).
//
// Blocks are decoded by s2.Decode, which is fast and safe, but which also accepts
// what S2 adds to the format: a copy with a one-byte offset of zero repeats the
// last offset, with a length of up to 16 MiB. In snappy an offset of zero is an
// error, and no other snappy decoder would take such a block.

// parseBlock splits a block into the length it declares and its operations. ok is
// false when there is no length.
func parseBlock(block []byte) (length uint64, ops []byte, ok bool) {
	length, n := binary.Uvarint(block)
	if n <= 0 {
		return 0, nil, false
	}
	return length, block[n:], true
}

// The low two bits of an operation's first byte, its tag.
const (
	tagLiteral = 0
	tagCopy1   = 1 // 2 bytes: length 4 to 11, offset of 11 bits
	tagCopy2   = 2 // 3 bytes: length 1 to 64, offset of 16 bits
	tagCopy4   = 3 // 5 bytes: length 1 to 64, offset of 32 bits
)
