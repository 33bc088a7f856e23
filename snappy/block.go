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

// hasRepeat reports whether the operations contain an S2 repeat. What it says of
// operations that s2.Decode refuses means nothing.
//
// Walking the operations costs a quarter of the time of decoding them, looking for
// the two bytes that begin a repeat a hundredth; so the walk is kept for blocks
// that have such bytes, mostly inside literals.
func hasRepeat(ops []byte) bool {
	return mayHaveRepeat(ops) && walkFindsRepeat(ops)
}

// A repeat begins with the bytes 000xxx01 00000000.
const (
	repeatMask = 0xe3
	repeatTag  = 0x01
)

// mayHaveRepeat reports whether the first two bytes of a repeat stand anywhere in
// ops, eight places at a time.
func mayHaveRepeat(ops []byte) bool {
	const ones = 0x0101010101010101
	const highs = 0x8080808080808080
	i := 0
	for ; i+9 <= len(ops); i += 8 {
		window := ops[i : i+9 : i+9]
		tags := binary.LittleEndian.Uint64(window)
		offsets := binary.LittleEndian.Uint64(window[1:])
		// A byte of x is zero where a repeat may begin. The subtraction borrows into
		// a high bit for the lowest such byte, and for none when there is none.
		x := (tags&(repeatMask*ones) ^ repeatTag*ones) | offsets
		if (x-ones)&^x&highs != 0 {
			return true
		}
	}
	for ; i+2 <= len(ops); i++ {
		if ops[i]&repeatMask == repeatTag && ops[i+1] == 0 {
			return true
		}
	}
	return false
}

// walkFindsRepeat goes through ops from one operation to the next. It stops at the
// first that is cut short; decoding fails there.
func walkFindsRepeat(ops []byte) bool {
	for i := 0; i < len(ops); {
		switch ops[i] & 3 {
		case tagLiteral:
			i += literalLen(ops[i:])
		case tagCopy1:
			if ops[i]&repeatMask == repeatTag && i+1 < len(ops) && ops[i+1] == 0 {
				return true
			}
			i += 2
		case tagCopy2:
			i += 3
		case tagCopy4:
			i += 5
		}
	}
	return false
}

// literalLen returns the length of the literal that ops begins with, its tag
// included. A literal of up to 60 bytes has its length in the tag, a longer one in
// the one to four bytes after it.
func literalLen(ops []byte) int {
	n := int(ops[0] >> 2)
	if n < 60 {
		return 1 + n + 1
	}
	extra := n - 59
	if len(ops) < 1+extra {
		return len(ops)
	}
	n = 0
	for i := extra; i > 0; i-- {
		n = n<<8 | int(ops[i])
	}
	if n >= len(ops) {
		return len(ops)
	}
	return 1 + extra + n + 1
}
