package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestProgressBar(t *testing.T) {
	for _, test := range []struct {
		name        string
		done, total int64
		elapsed     time.Duration
		width       int
		want        string
	}{
		{"half", 500_000_000, 1_000_000_000, 2 * time.Second, 75, "[==============>             ]   50%  500 MB of 1.0 GB  250 MB/s  0:02 left"},
		{"wide", 1, 4, time.Second, 300, "[==========>                             ]   25%  1 B of 4 B  1 B/s  0:03 left"},
		{"all", 4, 4, time.Second, 40, "[=============]  100%  4 B of 4 B  4 B/s"},
		{"more than all", 5, 4, time.Second, 30, "100%  5 B of 4 B  5 B/s"},
		{"begin", 0, 4, 0, 50, "[>                      ]    0%  0 B of 4 B  0 B/s"},
		{"total unknown", 12_345, 0, time.Second, 80, "12 kB  12 kB/s"},
		{"narrow", 500_000_000, 1_000_000_000, 200 * time.Second, 30, " 50%  500 MB of 1.0 GB"},
		{"minutes", 1, 100, 5 * time.Second, 45, "  1%  1 B of 100 B  0 B/s  8:15 left"},
		{"very narrow", 1, 2, time.Second, 3, " 50"},
		{"no columns", 1, 2, time.Second, -1, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := progressBar(test.done, test.total, test.elapsed, test.width)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("bar (-want +got):\n%s", diff)
			}
			if len(got) > max(test.width, 0) {
				t.Errorf("%d columns, want at most %d", len(got), test.width)
			}
		})
	}
}

func TestAmount(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9951: "10 kB", 999_400: "999 kB",
		999_600: "1.0 MB", 1.2e9: "1.2 GB", 3e12: "3.0 TB", 5e15: "5000.0 TB",
	} {
		if got := amount(n); got != want {
			t.Errorf("amount(%v) = %q, want %q", n, got, want)
		}
	}
}
