package compat

import (
	"bytes"
	"math/rand/v2"
	"strconv"
)

// Messages returns messages of all lengths at which something changes in the format,
// some that shrink and some that do not. They are the same in every process.
func Messages() [][]byte {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // for variety, not for secrecy
	lengths := []int{1, 2, 23, 24, 60, 61, 100, 1000, 4096, 16384, 32768, 65517, 65518, 65519, 65536, 65537, 200_000, 1 << 20}
	all := make([][]byte, 0, 3*len(lengths))
	for _, n := range lengths {
		var text []byte
		for len(text) < n {
			text = strconv.AppendUint(append(text, "user="...), r.Uint64N(1000), 10)
			text = append(text, " status=200\n"...)
		}
		noise := make([]byte, n)
		for i := range noise {
			noise[i] = byte(r.UintN(256)) //nolint:gosec // it fits
		}
		all = append(all, text[:n], noise, bytes.Repeat([]byte{7}, n))
	}
	return all
}
