package facts

import "testing"

func TestFact(t *testing.T) {
	tests := []struct {
		fact   Fact[int]
		value  int
		known  bool
		absent bool
		unseen string
		says   string
	}{
		{Fact[int]{}, 0, false, false, "it was not looked at", "unknown: it was not looked at"},
		{Unknown[int]("no right"), 0, false, false, "no right", "unknown: no right"},
		{Absent[int](), 0, false, true, "", "none"},
		{Known(0), 0, true, false, "", "0"},
		{Known(7), 7, true, false, "", "7"},
	}
	for _, test := range tests {
		v, known := test.fact.Get()
		if v != test.value || known != test.known || test.fact.IsAbsent() != test.absent || test.fact.Unseen() != test.unseen || test.fact.String() != test.says {
			t.Errorf("%+v: %d, %v, %v, %q, %q", test.fact, v, known, test.fact.IsAbsent(), test.fact.Unseen(), test.fact.String())
		}
	}
}
