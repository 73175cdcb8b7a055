package facts

import "testing"

func TestNamesArePrintable(t *testing.T) {
	evil := "\x1b[2J\nMAINPID=1\u202e\x9b\xff"
	const want = "�[2J�MAINPID=1���"
	p := Process{PID: 1, Comm: evil}
	if got := p.String(); got != want+" 1" {
		t.Errorf("process: %q", got)
	}
	s := Socket{Family: Unix, Address: evil}
	if got := s.Name(); got != want {
		t.Errorf("socket: %q", got)
	}
	s.OtherNetNS, s.Master.Container = true, evil
	if got := s.Name(); got != want+" in "+want {
		t.Errorf("socket in a container: %q", got)
	}
}
