package scale

import (
	"math"
	"testing"

	"google.golang.org/grpc"
)

func TestDurationsThatWouldOverflowCountAsAYear(t *testing.T) {
	o, err := gather([]grpc.DialOption{
		WithShrinkAfter(math.MaxInt64), WithProbeInterval(math.MaxInt64), WithIdleProbeInterval(math.MaxInt64), WithProbeTimeout(math.MaxInt64), WithMaxConnectionAge(math.MaxInt64),
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.shrinkAfter != longest || o.probeInterval != longest || o.idleProbeInterval != longest || o.probeTimeout != longest || o.maxAge != longest {
		t.Errorf("the settings are %+v, want a year for each duration", o.settings)
	}
	years := "9000000000s"
	js := jsonConfig{ShrinkAfter: &years}
	if err := js.apply(&o.settings); err != nil || o.shrinkAfter != longest {
		t.Errorf("a service config sets %v (%v), want a year", o.shrinkAfter, err)
	}
	for _, d := range []int64{int64(o.shrinkAfter), 2 * int64(o.idleProbeInterval), mostMoving * int64(o.probeTimeout), mostPatience * int64(o.probeTimeout) << mostDoublings} {
		if d <= 0 {
			t.Errorf("%d has overflowed", d)
		}
	}
}
