package scale

import "testing"

// A silent connection holds back as much of the demand as it has room for, and all of it if
// no other is well.
func TestDemandThatASilentConnectionHasNoRoomForIsNotHeldBack(t *testing.T) {
	type one struct {
		doubt   doubt
		streams int64 // of ten
	}
	for name, tc := range map[string]struct {
		ready []one
		held  int64 // of a demand of 8
	}{
		"none is READY":                {nil, 0},
		"all are well":                 {[]one{{doubtNone, 10}, {doubtQuiet, 10}}, 0},
		"the only one is silent":       {[]one{{doubtSilent, 10}}, 8},
		"all are silent":               {[]one{{doubtSilent, 10}, {doubtSilent, 10}}, 8},
		"one is silent, and full":      {[]one{{doubtSilent, 10}, {doubtNone, 10}}, 0},
		"one is silent, and has room":  {[]one{{doubtSilent, 7}, {doubtNone, 10}}, 3},
		"two are silent and have room": {[]one{{doubtSilent, 7}, {doubtNone, 10}, {doubtSilent, 9}}, 4},
		"one is silent and unused":     {[]one{{doubtNone, 10}, {doubtSilent, 0}}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			s, ready := new(subchannel), make([]*connection, 0, len(tc.ready))
			for _, one := range tc.ready {
				c := &connection{sub: s, doubt: one.doubt}
				c.softLimit.Store(10)
				c.streams.Store(one.streams | doubtBit)
				ready = append(ready, c)
			}
			s.ready.Store(&ready)
			if held := s.heldForSilentLocked(8); held != tc.held {
				t.Errorf("%d are held back, want %d", held, tc.held)
			}
		})
	}
}
