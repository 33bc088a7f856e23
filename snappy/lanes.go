package snappy

import "encoding/binary"

// One walk spends its time waiting: where an operation begins is known only when the
// one before it has been read. Four walks at once take hardly longer than one, so a
// long block is cut in four. Where the second, third and fourth part begin need not
// be where an operation begins; but operations are short, and two walks that ever
// meet stay together. So each lane notes its first steps, and when the lane before it
// comes across and steps on one of them, all that follows is true, and only what was
// before is void. Lanes that do not meet cost time, not truth.

const (
	lanes = 4
	// minLanes is the length from which lanes are worth it.
	minLanes = 4 << 10
	// trailLen is how far a lane notes its steps, in bytes.
	trailLen = 128
)

// trail is the steps of a lane in its first trailLen bytes, one bit for each byte.
type trail [trailLen / 64]uint64

func (t *trail) has(i int) bool { return t[i/64]&(1<<(i%64)) != 0 }

// begin is walk for the first steps of a lane, which it notes.
func (t *trail) begin(ops []byte, begin int) (next, repeat int) {
	repeat = -1
	steps := ops[begin : begin+trailLen+1]
	i := 0
	for i < trailLen {
		t[i/64] |= 1 << (i % 64)
		w := binary.LittleEndian.Uint16(steps[i:])
		if isRepeat(w) {
			repeat = begin + i
		}
		n := int(opLen[w&0xff])
		if n == 0 {
			n = longLiteralLen(ops[begin+i:])
		}
		i += n
	}
	return begin + i, repeat
}

// lanesFindRepeat is walk for long operations. It reports whether there is a repeat.
func lanesFindRepeat(ops []byte) bool {
	part := len(ops) / lanes
	var (
		trails [lanes]trail
		at     [lanes]int
		repeat = [lanes]int{-1, -1, -1, -1}
		ends   = [lanes]int{part, 2 * part, 3 * part, len(ops)}
	)
	for k := 1; k < lanes; k++ {
		at[k], repeat[k] = trails[k].begin(ops, k*part)
	}
	abreast(ops, &at, &ends, &repeat)

	// right is a place where an operation is known to begin.
	right := 0
	for k := range lanes {
		if k > 0 {
			begin, r := k*part, -1
			for right < begin+trailLen && !trails[k].has(right-begin) {
				right = stepLane(ops, right, &r)
			}
			if r >= 0 {
				return true
			}
			if right >= begin+trailLen { // never met: walk the part again
				at[k], repeat[k] = right, -1
			}
		}
		next, r := walk(ops, at[k], ends[k])
		if max(r, repeat[k]) >= right {
			return true
		}
		right = next
	}
	return false
}

// stepLane returns the place after the operation at i, and notes a repeat.
func stepLane(ops []byte, i int, repeat *int) int {
	next, r := walk(ops, i, min(i+1, len(ops)))
	if r >= 0 {
		*repeat = r
	}
	return next
}

// abreast moves all lanes on until one is at its end.
func abreast(ops []byte, at, ends, repeat *[lanes]int) {
	// In variables of their own the places stay in registers.
	a, b, c, d := at[0], at[1], at[2], at[3]
	aEnd, bEnd, cEnd, dEnd := ends[0], ends[1], ends[2], ends[3]-1
	for a < aEnd && b < bEnd && c < cEnd && d < dEnd {
		wa := binary.LittleEndian.Uint16(ops[a:])
		wb := binary.LittleEndian.Uint16(ops[b:])
		wc := binary.LittleEndian.Uint16(ops[c:])
		wd := binary.LittleEndian.Uint16(ops[d:])
		na, nb, nc, nd := opLen[wa&0xff], opLen[wb&0xff], opLen[wc&0xff], opLen[wd&0xff]
		if na == 0 || nb == 0 || nc == 0 || nd == 0 || isRepeat(wa) || isRepeat(wb) || isRepeat(wc) || isRepeat(wd) {
			a = stepLane(ops, a, &repeat[0])
			b = stepLane(ops, b, &repeat[1])
			c = stepLane(ops, c, &repeat[2])
			d = stepLane(ops, d, &repeat[3])
			continue
		}
		a += int(na)
		b += int(nb)
		c += int(nc)
		d += int(nd)
	}
	*at = [lanes]int{a, b, c, d}
}
