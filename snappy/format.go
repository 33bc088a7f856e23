package snappy

import (
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/s2"
)

// The framing format; section numbers below are those of
// https://github.com/google/snappy/blob/main/framing_format.txt.
const (
	// streamID is the first chunk of a stream, with its header (section 4.1).
	streamID = "\xff\x06\x00\x00sNaPpY"
	// headerLen is the length of a chunk's header: type and length.
	headerLen = 4
	// checksumLen is the length of the checksum at the front of a data chunk.
	checksumLen = 4
	// maxBlock is the most uncompressed data one chunk may hold (sections 4.2, 4.3).
	maxBlock = 64 << 10
	// maxBody is the length of the longest compressed block that is accepted. It is the
	// original implementation's MaxCompressedLength(maxBlock), as in golang/snappy.
	maxBody = 32 + maxBlock + maxBlock/6
)

// Chunk types (section 4). 0x02 to 0x7f are reserved and must be refused; 0x80 to 0xfd
// are reserved and must be skipped.
const (
	chunkCompressed    = 0x00
	chunkUncompressed  = 0x01
	chunkFirstReserved = 0x02
	chunkFirstSkipped  = 0x80
	chunkStreamID      = 0xff
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mask makes the checksum of section 3 from a CRC-32C.
func mask(crc uint32) uint32 { return (crc>>15 | crc<<17) + 0xa282ead8 }

func checksum(b []byte) uint32 { return mask(crc32.Update(0, castagnoli, b)) }

// scratch is a pooled buffer. There is a pool for each of scratchSizes, so that a small
// message never uses the buffer of a large one.
type scratch struct {
	b    []byte
	pool *sync.Pool
}

var (
	scratchSizes = [...]int{
		2 << 10,
		12 << 10,
		40 << 10,
		len(streamID) + headerLen + checksumLen + maxBlock + 64, // any chunk that this package writes, any decoded block
		checksumLen + maxBody,
	}
	scratchPools [len(scratchSizes)]sync.Pool
)

// getScratch returns a buffer of at least n bytes. n must not be more than the format
// allows in a chunk. put gives the buffer back.
func getScratch(n int) *scratch {
	for i, size := range scratchSizes {
		if n > size {
			continue
		}
		if s, ok := scratchPools[i].Get().(*scratch); ok {
			return s
		}
		return &scratch{b: make([]byte, size), pool: &scratchPools[i]}
	}
	panic("snappy: cannot happen: the length of a chunk is checked before a buffer is taken")
}

func (s *scratch) put() {
	if s != nil {
		s.pool.Put(s)
	}
}

// grow returns a scratch of at least n bytes: s if it is long enough, otherwise another,
// and gives s back.
func (s *scratch) grow(n int) *scratch {
	if s != nil && len(s.b) >= n {
		return s
	}
	s.put()
	return getScratch(n)
}

// chunkRoom returns the length of the buffer needed to make a chunk of n bytes of data,
// with the stream identifier in front of it.
func chunkRoom(n int) int {
	return len(streamID) + headerLen + checksumLen + s2.MaxEncodedLen(n)
}
