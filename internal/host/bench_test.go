package host

import (
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

// BenchmarkSample is what the probe costs each second, BenchmarkObserve what a
// look at everything costs, both in the namespace and among the processes that
// are there.
func BenchmarkSample(b *testing.B) {
	h := benchHost(b)
	defer reportCPU(b)()
	for b.Loop() {
		readings, err := h.Sample(b.Context())
		if err != nil || len(readings) == 0 {
			b.Fatal(readings, err)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	h := benchHost(b)
	defer reportCPU(b)()
	for b.Loop() {
		if facts, err := h.Observe(b.Context()); err != nil || len(facts.Sockets) == 0 {
			b.Fatal(facts, err)
		}
	}
}

// reportCPU adds the CPU time of all threads, from now on, to the figures.
func reportCPU(b *testing.B) func() {
	cpu := func() int64 {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return unix.TimevalToNsec(r.Utime) + unix.TimevalToNsec(r.Stime)
	}
	before := cpu()
	return func() { b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") }
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
