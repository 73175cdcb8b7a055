package kernel

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Signals are what a process does with signals (/proc/PID/status, SigCgt and
// SigIgn), which everybody may see: a bit for each, from 1 on.
type Signals struct {
	Caught, Ignored uint64
	// Unknown says that this /proc does not tell (a sandbox's need not).
	Unknown bool
}

// Catches reports whether there is a handler for each of the signals.
func (s Signals) Catches(signals ...unix.Signal) bool { return all(s.Caught, signals) }

// Ignores reports whether each of the signals is ignored.
func (s Signals) Ignores(signals ...unix.Signal) bool { return all(s.Ignored, signals) }

func all(set uint64, signals []unix.Signal) bool {
	for _, signal := range signals {
		if set&(1<<(signal-1)) == 0 {
			return false
		}
	}
	return true
}

// SignalsOf are those of a process now.
func SignalsOf(pid int) (Signals, error) {
	path := procPath(pid, "status")
	b, err := read(path)
	if err != nil {
		return Signals{}, err
	}
	s, err := signalsIn(b)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return s, err
}

func signalsIn(status []byte) (s Signals, err error) {
	for name, to := range map[string]*uint64{"SigCgt": &s.Caught, "SigIgn": &s.Ignored} {
		value, err := field(status, name)
		if err != nil {
			return s, err
		}
		if *to, err = strconv.ParseUint(string(value), 16, 64); err != nil {
			return s, fmt.Errorf("%s: %w", name, err)
		}
	}
	return s, nil
}

// signalsOrNone are those in status, unknown where it does not tell them.
func signalsOrNone(status []byte) Signals {
	s, err := signalsIn(status)
	if err != nil {
		return Signals{Unknown: true}
	}
	return s
}

// Catches reports whether a process has a handler for the signal.
func Catches(pid int, signal unix.Signal) (bool, error) {
	s, err := SignalsOf(pid)
	return s.Catches(signal), err
}
