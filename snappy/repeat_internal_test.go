package snappy

import (
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/s2"
)

// hasRepeatSlowly is hasRepeat as one would write it if time were no matter.
func hasRepeatSlowly(ops []byte) bool {
	for i := 0; i < len(ops); {
		switch n := int(ops[i] >> 2); ops[i] & 3 {
		case tagLiteral:
			i++
			if n >= 60 {
				extra := n - 59
				if len(ops)-i < extra {
					return false
				}
				n = 0
				for k := range extra {
					n |= int(ops[i+k]) << (8 * k)
				}
				i += extra
			}
			i += n + 1
		case tagCopy1:
			if ops[i]>>5 == 0 && i+1 < len(ops) && ops[i+1] == 0 {
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

func TestTheFastSearchForRepeatsFindsWhatTheSlowOneFinds(t *testing.T) {
	const rounds = 3000
	r := rand.New(rand.NewPCG(1, 1))
	found := 0
	for range rounds {
		ops := randomOps(r, 1+r.IntN(12_000))
		want := hasRepeatSlowly(ops)
		if got := hasRepeat(ops); got != want {
			t.Fatalf("hasRepeat = %v, want %v, for %x", got, want, ops)
		}
		if want {
			found++
		}
	}
	if found < rounds/10 || found > rounds*9/10 {
		t.Errorf("%d of %d blocks had a repeat; the test needs both kinds", found, rounds)
	}
}

// randomOps makes operations of all kinds, whose literals are full of bytes that look
// like repeats, and now and then puts in a real one.
func randomOps(r *rand.Rand, size int) []byte {
	var ops []byte
	repeats := r.IntN(2) == 0
	for len(ops) < size {
		switch k := r.IntN(100); {
		case k < 40:
			ops = appendLiteral(ops, randomLookalike(r, 1+r.IntN(60)))
		case k < 42:
			ops = appendLiteral(ops, randomLookalike(r, 61+r.IntN(2000)))
		case k < 70:
			ops = append(ops, tagCopy1|byte(r.IntN(64))<<2, byte(1+r.IntN(255)))
		case k < 95:
			ops = append(ops, tagCopy2|byte(r.IntN(64))<<2, byte(r.Uint32()), byte(r.IntN(3)))
		case k < 99:
			ops = append(ops, tagCopy4|byte(r.IntN(64))<<2, 1, 0, 1, 0)
		case repeats && r.IntN(4) == 0:
			ops = append(ops, repeatTag|byte(r.IntN(5))<<2, 0)
		}
	}
	return ops
}

func randomLookalike(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = []byte{0x01, 0x00, 0x05, 0x00, 'a', 0xf0, 0xff, 0x11}[r.IntN(8)]
	}
	return b
}

func appendLiteral(ops, data []byte) []byte {
	if n := len(data) - 1; n < 60 {
		ops = append(ops, byte(n)<<2)
	} else {
		ops = append(ops, 61<<2, byte(n), byte(n>>8))
	}
	return append(ops, data...)
}

func FuzzRepeats(f *testing.F) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, n := range []int{1, 9, 100, 1100, 5000, 9000} {
		f.Add(randomOps(r, n))
		f.Add(s2.Encode(nil, randomLookalike(r, n)))
		f.Add(s2.EncodeSnappy(nil, randomLookalike(r, n)))
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if got, want := hasRepeat(ops), hasRepeatSlowly(ops); got != want {
			t.Fatalf("hasRepeat = %v, want %v", got, want)
		}
	})
}
