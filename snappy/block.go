package snappy

import "encoding/binary"

// A block is what a compressed chunk holds after its checksum: the length of the
// data as a varint, then operations, each a literal or a copy of earlier output
// (https://github.com/google/snappy/blob/main/format_description.txt).
//
// Blocks are decoded by s2.Decode, which is fast and safe, but which also accepts
// what S2 adds to the format: a copy with a one-byte offset of zero, an error in
// snappy, repeats the last offset, with a length of up to 16 MiB. Such a block
// can be a bomb: 30 bytes of message become 65,536. So a block is refused before it
// is decoded when it declares more than the operations of snappy could make of its
// bytes. What S2 can still do after that is to say in its own way what snappy could
// say in about as many bytes; the checksum is compared as with any other block.
//
// To find the repeats themselves one must go from operation to operation, which
// takes a third to a half as long as decoding. Decoders that refuse them are slower
// (klauspost's snappy.DecodeStrict) or no longer maintained (golang/snappy).

// parseBlock splits a block into the length it declares and its operations. ok is
// false when there is no length.
func parseBlock(block []byte) (length uint64, ops []byte, ok bool) {
	length, n := binary.Uvarint(block)
	if n <= 0 {
		return 0, nil, false
	}
	return length, block[n:], true
}

// The operation of snappy that makes most of its bytes is a copy with an offset of
// two bytes: three bytes that stand for at most 64. A copy with an offset of one
// makes 11 of two, a literal less than its bytes.
const (
	longestCopy = 64
	copyLen     = 3
)

// canHold reports whether so many bytes of snappy's operations can stand for length
// bytes of data, of which there are at most maxBlock.
func canHold(ops int, length uint64) bool {
	return length*copyLen <= uint64(ops)*longestCopy //nolint:gosec // a length is not negative
}

// tagLiteral is the low two bits of a literal's first byte.
const tagLiteral = 0
