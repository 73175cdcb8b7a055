package remediate

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

func TestTarget(t *testing.T) {
	tests := []struct {
		limit    int
		factor   float64
		min, max int
		want     int
	}{
		{128, 2, 1024, 8192, 1024},  // the minimum
		{100, 2, 1, 8192, 256},      // rounded up
		{128, 2, 1, 8192, 256},      // a power of two stays
		{129, 2, 1, 8192, 512},      //
		{128, 1.5, 1, 8192, 256},    // 192
		{1024, 1.5, 1, 8192, 2048},  //
		{3, 1.5, 1, 8192, 8},        // 4.5
		{1024, 2, 1024, 8192, 2048}, // stepwise
		{4096, 2, 1024, 8192, 8192}, // exactly the maximum
		{4096, 1.0001, 1, 8192, 8192},
		{4097, 2, 1024, 8192, 8192}, // over the maximum
		{8192, 2, 1024, 8192, 8192},
		{65535, 2, 1024, 8192, 8192}, // may be below the limit
		{2048, 2, 1024, 3000, 3000},  // a maximum that is no power of two
		{100, 2, 1000, 8192, 1000},   // nor the minimum
		{0, 2, 1, 8192, 1},
		{0, 2, 16, 8192, 16},
		{128, 2, 1024, 1024, 1024},
		{math.MaxInt, 1e300, 1, 8192, 8192},
		{1, math.Inf(1), 1, 8192, 8192},
		{0, math.NaN(), 1, 8192, 8192},
		{1 << 30, 2, 1, math.MaxInt32, math.MaxInt32},
		{1 << 29, 2, 1, math.MaxInt32, 1 << 30},
	}
	for _, test := range tests {
		p := Policy{Factor: test.factor, MinBacklog: test.min, MaxBacklog: test.max}
		if got := p.target(test.limit); got != test.want {
			t.Errorf("limit %d × %v within %d and %d: target %d, want %d", test.limit, test.factor, test.min, test.max, got, test.want)
		}
	}
}

func TestTargetBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50_000 {
		p := Policy{Factor: 1 + math.Exp(r.Float64()*60-30), MaxBacklog: 1 + r.IntN(math.MaxInt32)>>r.IntN(31)}
		p.MinBacklog = 1 + r.IntN(p.MaxBacklog)
		limit := r.IntN(math.MaxInt) >> r.IntN(63)
		got := p.target(limit)
		if got < p.MinBacklog || got > p.MaxBacklog {
			t.Fatalf("%+v: limit %d: target %d", p, limit, got)
		}
		if got != p.MinBacklog && got != p.MaxBacklog {
			if bits.OnesCount(uint(got)) != 1 {
				t.Fatalf("%+v: limit %d: target %d is no power of two", p, limit, got)
			}
			if want := float64(limit) * p.Factor; float64(got) < want || float64(got) >= 2*math.Ceil(want) && got > 1 {
				t.Fatalf("%+v: limit %d: target %d is not the next power of two", p, limit, got)
			}
		}
		if next := p.target(limit + (math.MaxInt-limit)/2); next < got {
			t.Fatalf("%+v: limit %d: target %d, but %d for a larger one", p, limit, got, next)
		}
	}
}
