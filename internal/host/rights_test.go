package host

import (
	"os/exec"
	"syscall"
	"testing"

	"qwatch/internal/kernel"
)

func TestAnyOf(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		fails []error // one for each target
		err   error
	}{
		{"works", []error{nil}, nil},
		{"works for one", []error{syscall.EPERM, nil}, nil},
		{"works for none", []error{syscall.EPERM, syscall.ENOSYS}, syscall.ENOSYS},
		{"all have ended", []error{syscall.ESRCH, syscall.ESRCH}, nil},
		{"one has ended", []error{syscall.EPERM, syscall.ESRCH}, syscall.EPERM},
	} {
		var targets []target
		for i := range c.fails {
			targets = append(targets, target{pid: i})
		}
		err := anyOf(targets, func(t target) error { return c.fails[t.pid] })
		if err != c.err {
			t.Errorf("%s: got %v, want %v", c.name, err, c.err)
		}
	}
	gone := target{pid: ended.ProcessState.Pid()}
	if err := anyOf([]target{gone}, func(t target) error { return kernel.MayTakeDescriptor(t.pid, t.fd) }); err != nil {
		t.Errorf("relisten on an ended process: %v", err)
	}
}
