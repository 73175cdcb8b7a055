package remediate

import (
	"math"
	"slices"
	"sort"
	"time"

	"qwatch/remediate/facts"
)

// trend is how the length of a queue changes.
type trend struct {
	known         bool
	slope         float64 // connections a second
	sure          float64 // how many standard deviations from no change
	length, limit int     // now
	low           int     // the shortest
}

const (
	// leastSamples and leastSpan are needed to say anything.
	leastSamples = 5
	leastSpan    = time.Second
	// surely is when a change is no chance: one in a hundred queues that do
	// not grow looks so.
	surely = 2.33
)

// trendOf measures the trend of one queue's newest samples. The slope is the
// median of those between any two of them (Theil and Sen), so that a burst does
// not make one; whether it is more than chance says the test of Mann and Kendall:
// how many later samples are longer than how many earlier ones.
func trendOf(samples []facts.Sample, span time.Duration) trend {
	if len(samples) == 0 {
		return trend{}
	}
	last := samples[len(samples)-1]
	samples = samples[slices.IndexFunc(samples, func(s facts.Sample) bool { return last.At.Sub(s.At) <= span }):]
	t := trend{length: last.Length, limit: last.Limit, low: last.Length}
	n := len(samples)
	if n < leastSamples || last.At.Sub(samples[0].At) < leastSpan {
		return t
	}
	var slopes []float64
	rising := 0
	equal := map[int]int{}
	for i, a := range samples {
		t.low = min(t.low, a.Length)
		equal[a.Length]++
		for _, b := range samples[i+1:] {
			rising += sign(b.Length - a.Length)
			if apart := b.At.Sub(a.At).Seconds(); apart > 0 {
				slopes = append(slopes, float64(b.Length-a.Length)/apart)
			}
		}
	}
	sort.Slice(slopes, func(i, j int) bool { return slopes[i] < slopes[j] })
	t.known = true
	t.slope = math.Round(10*slopes[len(slopes)/2]) / 10
	variance := spread(n)
	for _, ties := range equal {
		variance -= spread(ties)
	}
	if variance > 0 {
		t.sure = float64(rising-sign(rising)) / math.Sqrt(variance)
	}
	return t
}

// spread is the variance of the sum of Mann and Kendall for n values.
func spread(n int) float64 { return float64(n*(n-1)*(2*n+5)) / 18 }

func sign(n int) int { return min(max(n, -1), 1) }

// grows reports whether the queue grows, and not by chance.
func (t trend) grows() bool { return t.known && t.slope > 0 && t.sure > surely }

// fullIn is how long it takes until the queue is full: it holds one more than its
// limit then.
func (t trend) fullIn() time.Duration {
	const ages = 365 * 24 * 3600 // within a Duration
	return time.Duration(min(float64(max(1, t.limit+1-t.length))/t.slope, ages) * float64(time.Second))
}
