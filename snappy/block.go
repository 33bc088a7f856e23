package snappy

import "encoding/binary"

// A block is the part of a compressed chunk that follows its checksum: the length of the
// data as a varint, then operations, each of them a literal or a copy of earlier output
// (https://github.com/google/snappy/blob/main/format_description.txt).
//
// Blocks are decoded by s2.Decode, which is fast and safe. It also accepts what S2 adds
// to the format: a copy with a one-byte offset of zero, which is an error in snappy,
// repeats the last offset, with a length of up to 16 MiB. Such a block can be a bomb: 30
// bytes of message become 65,536. So a block that declares more data than snappy's
// operations could make from its bytes is refused before it is decoded. A block with
// repeats that is left after that expands no more than a snappy block could, and its
// checksum is compared like that of any other block.
//
// Refusing every repeat would mean to parse all operations, which takes a third to a half
// as long as decoding. Decoders that refuse them are slower (klauspost's
// snappy.DecodeStrict) or no longer maintained (golang/snappy).

// parseBlock splits a block into the length it declares and its operations. ok is
// false when there is no length.
func parseBlock(block []byte) (length uint64, ops []byte, ok bool) {
	length, n := binary.Uvarint(block)
	if n <= 0 {
		return 0, nil, false
	}
	return length, block[n:], true
}

// The snappy operation that expands most is a copy with an offset of two bytes: three
// bytes become at most 64. A copy with an offset of one byte turns two bytes into at most
// 11; a literal yields fewer bytes than it takes.
const (
	longestCopy = 64
	copyLen     = 3
)

// canHold reports whether ops bytes of snappy operations can expand to length bytes of
// data. length is at most maxBlock.
func canHold(ops int, length uint64) bool {
	return length*copyLen <= uint64(ops)*longestCopy //nolint:gosec // a length is not negative
}

// tagLiteral is the low two bits of a literal's first byte.
const tagLiteral = 0
