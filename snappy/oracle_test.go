package snappy_test

import (
	"bytes"
	"encoding/binary"
)

// oracle decodes a message as the two format descriptions say, without a thought for
// speed or memory. ok is false when the message is not allowed.
func oracle(message []byte) (out []byte, ok bool) {
	if len(message) == 0 {
		return nil, true
	}
	if !bytes.HasPrefix(message, []byte(streamID)) {
		return nil, false
	}
	for len(message) > 0 {
		if len(message) < 4 {
			return nil, false
		}
		chunkType, size := message[0], int(binary.LittleEndian.Uint32(message)>>8)
		if message = message[4:]; size > len(message) {
			return nil, false
		}
		body := message[:size]
		message = message[size:]
		switch {
		case chunkType == 0xff && string(body) == streamID[4:], chunkType >= 0x80 && chunkType < 0xff:
		case chunkType <= 1 && size >= 4:
			plain, ok := body[4:], true
			if chunkType == 0 {
				plain, ok = oracleBlock(body[4:])
			}
			if !ok || len(plain) > 65536 || checksum(plain) != binary.LittleEndian.Uint32(body) {
				return nil, false
			}
			out = append(out, plain...)
		default:
			return nil, false
		}
	}
	return out, true
}

// oracleBlock decodes a block, by the rules of S2 as far as snappy could have made as
// much of as few bytes.
func oracleBlock(block []byte) (out []byte, ok bool) {
	const longest = 76490 // snappy's MaxCompressedLength(65536)
	length, n := binary.Uvarint(block)
	if n <= 0 || length > 65536 || len(block) > longest || length*3 > 64*uint64(len(block)-n) {
		return nil, false
	}
	last := 0 // offset
	for ops := block[n:]; len(ops) > 0; {
		tag := ops[0]
		size := int(tag>>2) + 1
		extra := []int{0, 1, 2, 4}[tag&3]
		if tag&3 == 0 && size > 60 {
			extra = size - 60
		}
		if len(ops) < 1+extra {
			return nil, false
		}
		value := 0
		for i := range extra {
			value |= int(ops[1+i]) << (8 * i)
		}
		ops = ops[1+extra:]
		offset := value
		switch tag & 3 {
		case 0:
			if extra > 0 {
				size = value + 1
			}
			if size > len(ops) {
				return nil, false
			}
			out = append(out, ops[:size]...)
			ops = ops[size:]
			continue
		case 1:
			size, offset = int(tag>>2&7)+4, int(tag>>5)<<8|value
			if offset == 0 {
				offset = last
				if size, ops, ok = oracleRepeat(size, ops); !ok {
					return nil, false
				}
			}
		}
		last = offset
		if offset == 0 || offset > len(out) || len(out)+size > int(length) {
			return nil, false
		}
		for range size {
			out = append(out, out[len(out)-offset])
		}
	}
	return out, len(out) == int(length)
}

// oracleRepeat returns the length of an S2 repeat that begins like a copy of size
// bytes, and the operations after it: from 9 on, the length stands in one to three
// bytes of its own.
func oracleRepeat(size int, ops []byte) (length int, rest []byte, ok bool) {
	extra := max(size-8, 0)
	if len(ops) < extra {
		return 0, nil, false
	}
	if extra == 0 {
		return size, ops, true
	}
	value := 0
	for i := range extra {
		value |= int(ops[i]) << (8 * i)
	}
	return value + []int{8, 260, 65540}[extra-1], ops[extra:], true
}
