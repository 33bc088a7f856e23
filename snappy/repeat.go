package snappy

import (
	"encoding/binary"
	"math/bits"
)

// hasRepeat reports whether the operations contain an S2 repeat. What it says of
// operations that s2.Decode refuses means nothing.
//
// Looking for the two bytes that begin a repeat costs a hundredth of the time of
// decoding, walking the operations a third to a half. So a block is walked only as
// far as it has such bytes: few short ones are, most long ones.
func hasRepeat(ops []byte) bool {
	at := 0 // an operation begins here
	for i := nextLookalike(ops, 0); i >= 0; i = nextLookalike(ops, max(at, i+1)) {
		if len(ops) >= minLanes {
			return lanesFindRepeat(ops)
		}
		if at, _ = walk(ops, at, i); at == i {
			return true
		}
	}
	return false
}

// A repeat begins with the bytes 000xxx01 00000000.
const (
	repeatMask = 0xe3
	repeatTag  = 0x01
)

// isRepeat reports whether an operation whose first two bytes are w, the first in the
// low half, is a repeat.
func isRepeat(w uint16) bool { return w&(0xff00|repeatMask) == repeatTag }

// nextLookalike returns the first place from i on where the first two bytes of a
// repeat stand, or -1.
func nextLookalike(ops []byte, i int) int {
	for ; i+17 <= len(ops); i += 16 {
		window := ops[i : i+17 : i+17]
		low, high := lookalikes(window[:9]), lookalikes(window[8:])
		if low|high == 0 {
			continue
		}
		if low != 0 {
			return i + bits.TrailingZeros64(low)/8
		}
		return i + 8 + bits.TrailingZeros64(high)/8
	}
	for ; i+2 <= len(ops); i++ {
		if isRepeat(binary.LittleEndian.Uint16(ops[i:])) {
			return i
		}
	}
	return -1
}

// lookalikes looks at the first eight of the nine bytes of window. The lowest bit that
// is set is that of the first byte where a repeat may begin; there is none when there
// is no such byte.
func lookalikes(window []byte) uint64 {
	const ones = 0x0101010101010101
	const highs = 0x8080808080808080
	tags := binary.LittleEndian.Uint64(window)
	offsets := binary.LittleEndian.Uint64(window[1:])
	// A byte of x is zero where a repeat may begin. The subtraction borrows into the
	// high bit of the lowest such byte, and perhaps of bytes above it.
	x := (tags&(repeatMask*ones) ^ repeatTag*ones) | offsets
	return (x - ones) &^ x & highs
}

// opLen is the length of the operation that begins with a given tag, or 0 for a
// literal whose length is not in the tag. A table is faster than a switch, whose
// branches nothing can predict.
var opLen = func() (table [256]uint8) {
	for tag := range table {
		switch tag & 3 {
		case tagLiteral:
			if n := tag >> 2; n < 60 {
				table[tag] = uint8(1 + n + 1)
			}
		case tagCopy1:
			table[tag] = 2
		case tagCopy2:
			table[tag] = 3
		case tagCopy4:
			table[tag] = 5
		}
	}
	return table
}()

// longLiteralLen returns the length of the literal of more than 60 bytes that ops
// begins with, its tag included, or of ops when that is shorter. The literal's length
// less one stands in the one to four bytes after the tag.
func longLiteralLen(ops []byte) int {
	extra := int(ops[0]>>2) - 59
	if len(ops) < 1+extra {
		return len(ops)
	}
	n := uint64(0)
	for i := extra; i > 0; i-- {
		n = n<<8 | uint64(ops[i])
	}
	return min(1+extra+int(min(n+1, uint64(len(ops)))), len(ops))
}

// walk goes from one operation to the next, from the one at i to the first at or
// after end, whose place it returns. repeat is the place of the last repeat on the
// way, or -1. An operation may be cut short by the end of ops; decoding fails there.
func walk(ops []byte, i, end int) (next, repeat int) {
	repeat = -1
	for i < end {
		n := int(opLen[ops[i]])
		if n == 0 {
			n = longLiteralLen(ops[i:])
		} else if i+1 < len(ops) && isRepeat(binary.LittleEndian.Uint16(ops[i:])) {
			repeat = i
		}
		i += n
	}
	return i, repeat
}
