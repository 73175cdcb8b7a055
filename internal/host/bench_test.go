package host

import (
	"testing"

	"qwatch/internal/testbed"
)

// BenchmarkSample is what the probe costs each second, BenchmarkObserve what a
// look at everything costs, both in the namespace and among the processes that
// are there.
func BenchmarkSample(b *testing.B) {
	h := benchHost(b)
	for b.Loop() {
		readings, err := h.Sample(b.Context())
		if err != nil || len(readings) == 0 {
			b.Fatal(readings, err)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	h := benchHost(b)
	for b.Loop() {
		if _, err := h.Observe(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func benchHost(b *testing.B) *Host {
	b.Helper()
	testbed.Needs(b, "namespace", "uwsgi")
	testbed.Run(b, testbed.Options{Address: "127.0.0.1:5400"})
	h, err := New(options)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close() })
	return h
}
