package facts

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at is a sample of a socket that has refused so much, in a namespace with these
// counters.
func at(own, neighbours, overflows, other uint64) Sample {
	return Sample{
		Drops: Known(uint32(own)), Neighbours: Neighbours{Drops: neighbours, Sum: 9},
		Overflows: overflows, OtherDrops: other, Before: Refusals{overflows, other},
	}
}

func TestOverflowed(t *testing.T) {
	renewed := at(0, 7, 153, 0)
	renewed.Neighbours.Sum = 8
	racing := at(10, 0, 5, 10) // a neighbour's, after the sockets were read
	racing.Before.Overflows = 0
	for _, c := range []struct {
		name          string
		before, after Sample
		want          Fact[Drops]
		says          string
	}{
		{"nothing", at(5, 5, 5, 5), at(5, 5, 5, 5), Known(Drops{}), "no overflows"},
		{"ordinary connections of a uWSGI", at(0, 0, 0, 0), at(100, 50, 0, 150), Known(Drops{}), "no overflows"},
		{"alone", at(0, 7, 0, 0), at(282, 7, 153, 129), Known(Drops{153, 153, true}), "153 overflows"},
		{"each counted twice", at(0, 7, 0, 0), at(306, 7, 153, 0), Known(Drops{153, 153, true}), "153 overflows"},
		{"a neighbour in ordinary use", at(0, 0, 0, 0), at(282, 50, 153, 179), Known(Drops{103, 153, true}), "at least 103 overflows"},
		{"the neighbour's are not its own", at(0, 0, 0, 0), at(50, 282, 153, 179), Known(Drops{0, 50, false}), "at most 50 overflows"},
		{"an idle neighbour of a full one", at(3, 0, 0, 3), at(3, 282, 153, 132), Known(Drops{}), "no overflows"},
		{"both", at(0, 0, 0, 0), at(500, 300, 400, 100), Known(Drops{200, 400, true}), "at least 200 overflows"},
		{"refused for another reason", at(0, 0, 0, 0), at(500, 0, 0, 0), Known(Drops{}), "no overflows"},
		{"a neighbour has come or gone", renewed, at(282, 0, 153, 129), Known(Drops{}), "no overflows"},
		{"that too, with overflows", at(0, 7, 0, 0), func() Sample { s := at(282, 0, 153, 129); s.Neighbours.Sum = 8; return s }(),
			Known(Drops{77, 153, false}), "at least 77 overflows"},
		{"an overflow of another after its drops were read", at(0, 0, 0, 0), racing, Known(Drops{0, 5, false}), "at most 5 overflows"},
		{"begun anew", at(100, 0, 10, 0), at(5, 0, 20, 0), Unknown[Drops]("the socket's counter began anew"), ""},
		{"the namespace's counters fell", at(0, 9, 10, 10), at(5, 0, 5, 5), Known(Drops{}), "no overflows"},
		{"an old kernel", Sample{Drops: Unknown[uint32]("old")}, at(5, 0, 20, 0), Unknown[Drops]("old"), ""},
		{"UNIX", at(0, 0, 0, 0), Sample{Drops: Absent[uint32]()}, Absent[Drops](), ""},
	} {
		got := c.after.Overflowed(c.before)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
		if d, ok := got.Get(); ok && d.String() != c.says {
			t.Errorf("%s: %q", c.name, d)
		}
	}
}

// FuzzOverflowed: whatever the counters do, the bounds are bounds.
func FuzzOverflowed(f *testing.F) {
	f.Add(uint64(282), uint64(50), uint64(153), uint64(179), uint64(3), uint64(0))
	f.Fuzz(func(t *testing.T, own, neighbours, overflows, other, was, before uint64) {
		now := at(own, neighbours, overflows, other)
		now.Before = Refusals{before, was}
		d := now.Overflowed(at(was, before, was, before)).Value
		if d.Least > d.Most || d.Most > 1<<32 || d.Proven && d.Least == 0 {
			t.Errorf("%+v", d)
		}
	})
}

func TestOverflowsSinceBirth(t *testing.T) {
	for _, c := range []struct {
		own, overflows, other, others uint64
		want                          Fact[uint64]
	}{
		{0, 999, 999, 0, Known[uint64](0)},
		{5000, 0, 9000, 0, Known[uint64](0)},
		{282, 153, 129, 0, Known[uint64](153)},
		{20, 153, 149, 153, Known[uint64](0)}, // the neighbour of that one
		{20, 153, 149, 100, Unknown[uint64]("the kernel counts overflows and refusals for other reasons together, 20 here, of which at most 20 are overflows")},
	} {
		if diff := cmp.Diff(c.want, OverflowsSinceBirth(c.own, Refusals{c.overflows, c.other}, c.others)); diff != "" {
			t.Errorf("%+v: (-want +got)\n%s", c, diff)
		}
	}
}

// Evidence of a socket's own drops: proven, or with a queue that was half full,
// and never what a neighbour has.
func TestWeighDrops(t *testing.T) {
	id := SocketID{1, 77}
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	weigh := func(length int, samples ...Sample) Evidence {
		for i := range samples {
			samples[i].ID, samples[i].At, samples[i].Length, samples[i].Limit = id, begin.Add(time.Duration(i)*time.Second), length, 128
		}
		return Weigh(Socket{ID: id, Family: TCP}, samples, time.Time{})
	}
	uncounted := func(own uint32) Sample {
		return Sample{Drops: Known(own), Uncounted: "its counters cannot be read"}
	}
	// One that was taken while the queue overflowed.
	bound := func(own uint32, all, other uint64) Sample {
		return Sample{Drops: Known(own), Overflows: 5, OtherDrops: 9, Before: Refusals{Overflows: all, Other: other}, Neighbours: Neighbours{Sum: all}}
	}
	for _, c := range []struct {
		name string
		e    Evidence
		yes  bool
		says string
	}{
		{"proven", weigh(0, at(0, 0, 0, 0), at(20, 0, 10, 0), at(40, 0, 20, 0)), true, ", 20 overflows"},
		{"likely, and half full", weigh(64, at(0, 0, 0, 0), at(20, 20, 20, 0)), true, ", at least 10 overflows"},
		{"likely", weigh(63, at(0, 0, 0, 0), at(20, 20, 20, 0)), false, ", at least 10 overflows"},
		{"a neighbour's", weigh(64, at(0, 0, 0, 0), at(20, 40, 20, 20)), false, ", 20 overflows in its network namespace, none of which is known to be its own"},
		{"none", weigh(64, at(0, 0, 0, 0), at(20, 0, 0, 20)), false, ", no overflows"},
		{"a new counter in between", weigh(0, at(9, 0, 0, 0), at(2, 0, 0, 0), at(5, 0, 3, 0), at(9, 0, 7, 0)), true, ", at least 7 overflows"},
		{"a new counter, and nothing else", weigh(0, at(9, 0, 0, 0), at(2, 0, 0, 0), at(2, 0, 0, 0)), false, ", no overflows"}, // in all of the namespace
		{"only a bound", weigh(0, bound(0, 0, 0), bound(7, 5, 5)), false, ", at most 5 overflows"},
		{"uncounted in between", weigh(64, at(0, 0, 0, 0), uncounted(9), at(20, 0, 10, 0)), true, ", 10 overflows"},
		{"uncounted at the end", weigh(64, at(0, 0, 0, 0), at(20, 0, 10, 0), uncounted(30)), true, ", at least 10 overflows"},
		{"calm, and uncounted at the begin", weigh(64, uncounted(0), at(0, 0, 0, 0), at(0, 0, 0, 0)), false, ", whether it overflowed is not known: its counters cannot be read"},
		{"uncounted", weigh(64, uncounted(0), uncounted(9)), false, ", whether it overflowed is not known: its counters cannot be read"},
	} {
		if c.e.Corroborates() != c.yes {
			t.Errorf("%s: corroborates %v: %+v", c.name, !c.yes, c.e)
		}
		if got := c.e.String(); !strings.HasSuffix(got, ")"+c.says) {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}
