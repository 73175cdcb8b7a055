package kernel

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

// Children are the same by whatever way they are found.
func TestChildren(t *testing.T) {
	var want []int
	for range 3 {
		c := exec.CommandContext(t.Context(), "sleep", "60")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		want = append(want, c.Process.Pid)
	}
	slices.Sort(want)
	found, err := Children(os.Getpid(), []string{"sleep"})
	var got []int
	for _, p := range found {
		got = append(got, p.PID)
	}
	if slices.Sort(got); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	some, ok := below(os.Getpid())
	for _, pid := range want {
		if ok && !slices.Contains(some, pid) {
			t.Errorf("%d is not among %v", pid, some)
		}
	}
	if _, ok := below(1 << 30); ok {
		t.Error("the children of nobody are known")
	}
}

// A process is not lost since its /proc does not tell its signals.
func TestSignalsOrNone(t *testing.T) {
	if s := signalsOrNone([]byte("Name:\tuwsgi\nUid:\t0\t0\t0\t0\n")); s != (Signals{Unknown: true}) {
		t.Errorf("%+v", s)
	}
	if s := signalsOrNone([]byte("SigIgn:\t0000000000000001\nSigCgt:\t0000000000000002\n")); s != (Signals{Caught: 2, Ignored: 1}) {
		t.Errorf("%+v", s)
	}
}
