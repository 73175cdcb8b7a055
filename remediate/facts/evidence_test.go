package facts

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWeigh(t *testing.T) {
	a, b, foreign := SocketID{1, 77}, SocketID{1, 78}, SocketID{2, 79}
	at := func(seconds int) time.Time {
		return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seconds) * time.Second)
	}
	tests := []struct {
		name    string
		samples []Sample
		since   int
		want    Evidence
		yes     bool
		says    string
	}{
		{"nothing", nil, 0, Evidence{OthersCalm: true}, false, "the kernel was not looked at"},
		{"full once", []Sample{{ID: a, At: at(0), Length: 129, Limit: 128}}, 0,
			Evidence{Samples: 1, Full: 1, Peak: 129, Limit: 128, OthersCalm: true}, true,
			"1 of 1 sample over 0s found the queue full (longest 129, limit 128)"},
		{"at the limit is not over it", []Sample{{ID: a, At: at(0), Length: 128, Limit: 128}}, 0,
			Evidence{Samples: 1, Peak: 128, Limit: 128, OthersCalm: true}, false,
			"0 of 1 sample over 0s found the queue full (longest 128, limit 128)"},
		{"full before since", []Sample{
			{ID: a, At: at(0), Length: 129, Limit: 128, Overflows: 5}, {ID: a, At: at(1), Length: 3, Limit: 1024, Overflows: 9}, {ID: a, At: at(3), Length: 4, Limit: 1024, Overflows: 9},
		}, 1, Evidence{Samples: 2, Peak: 4, Limit: 1024, Overflows: Known[uint64](0), OthersCalm: true, Over: 2 * time.Second}, false,
			"0 of 2 samples over 2s found the queue full (longest 4, limit 1024), no overflows"},
		{"overflows between the looks", []Sample{
			{ID: a, At: at(0), Length: 64, Limit: 128, Overflows: 5}, {ID: a, At: at(1), Length: 3, Limit: 128, Overflows: 9},
		}, 0, Evidence{Samples: 2, Peak: 64, Limit: 128, Overflows: Known[uint64](4), OthersCalm: true, Over: time.Second}, true,
			"0 of 2 samples over 1s found the queue full (longest 64, limit 128), 4 overflows in its network namespace"},
		{"overflows long ago", []Sample{{ID: a, At: at(0), Length: 64, Limit: 128, Overflows: 5e9}}, 0,
			Evidence{Samples: 1, Peak: 64, Limit: 128, OthersCalm: true}, false,
			"0 of 1 sample over 0s found the queue full (longest 64, limit 128)"},
		{"a counter that began anew", []Sample{
			{ID: a, At: at(0), Length: 64, Limit: 128, Overflows: 5}, {ID: a, At: at(1), Limit: 128},
		}, 0, Evidence{Samples: 2, Peak: 64, Limit: 128, Overflows: Unknown[uint64]("the counter of its network namespace began anew"), OthersCalm: true, Over: time.Second}, false,
			"0 of 2 samples over 1s found the queue full (longest 64, limit 128), whether it overflowed is not known: the counter of its network namespace began anew"},
		{"a neighbour half full", []Sample{
			{ID: a, At: at(0), Length: 64, Limit: 128}, {ID: b, At: at(0), Length: 64, Limit: 128}, {ID: a, At: at(1), Limit: 128, Overflows: 1},
		}, 0, Evidence{Samples: 2, Peak: 64, Limit: 128, Overflows: Known[uint64](1), Over: time.Second}, false,
			"0 of 2 samples over 1s found the queue full (longest 64, limit 128), 1 overflow in its network namespace"},
		{"neighbours less than half full, idle with a limit of 0, and in another namespace", []Sample{
			{ID: b, At: at(0), Length: 63, Limit: 128}, {ID: b, At: at(0)}, {ID: foreign, At: at(0), Length: 129, Limit: 128},
			{ID: a, At: at(0), Length: 64, Limit: 128}, {ID: a, At: at(1), Limit: 128, Overflows: 1},
		}, 0, Evidence{Samples: 2, Peak: 64, Limit: 128, Overflows: Known[uint64](1), OthersCalm: true, Over: time.Second}, true,
			"0 of 2 samples over 1s found the queue full (longest 64, limit 128), 1 overflow in its network namespace"},
		{"idle, and somebody else overflows", []Sample{
			{ID: a, At: at(0)}, {ID: a, At: at(1), Overflows: 9},
		}, 0, Evidence{Samples: 2, Overflows: Known[uint64](9), OthersCalm: true, Over: time.Second}, false,
			"0 of 2 samples over 1s found the queue full (longest 0, limit 0), 9 overflows in its network namespace"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := Weigh(Socket{ID: a}, test.samples, at(test.since))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if got.Corroborates() != test.yes {
				t.Errorf("corroborates: %v", got.Corroborates())
			}
			if diff := cmp.Diff(test.says, got.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// The kernel lets in one more than the limit (sk_acceptq_is_full).
func TestFull(t *testing.T) {
	for length, want := range map[int]bool{0: false, 128: false, 129: true} {
		if (Socket{Length: length, Limit: 128}).Full() != want || (Sample{Length: length, Limit: 128}).Full() != want {
			t.Errorf("%d of 128 is full: %v", length, !want)
		}
	}
}

// ListenOverflows counts TCP only.
func TestWeighUnix(t *testing.T) {
	id := SocketID{1, 77}
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	samples := []Sample{{ID: id, At: begin, Length: 64, Limit: 128}, {ID: id, At: begin.Add(time.Second), Limit: 128, Overflows: 9}}
	for family, want := range map[Family]uint64{TCP: 9, TCP6: 9, Unix: 0} {
		e := Weigh(Socket{ID: id, Family: family, SoleListener: true}, samples, time.Time{})
		if e.Overflows.Value != want || e.Corroborates() != (want > 0) || !e.SoleListener {
			t.Errorf("%s: %+v", family, e)
		}
	}
}
