package apply

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/sysctld"
	"qwatch/remediate"
)

var netKey = regexp.MustCompile(`^net(\.[a-zA-Z0-9_-]+)+$`)

// setSysctlIn sets the live value in the network namespace of another process:
// net.* of /proc/sys is that of the thread which opens it.
func setSysctlIn(a remediate.SetSysctl) (o remediate.Outcome) {
	if a.File != "" {
		return failed(-1, fmt.Errorf("no sysctl.d file of this host reaches the namespace of %s", a.NetNSOf))
	}
	pidfd, err := openProcess(a.NetNSOf)
	if err != nil {
		return failure(-1, err)
	}
	// As long as this is open the pid stays that process's.
	defer unix.Close(pidfd)
	err = kernel.InNetNSOf(a.NetNSOf.PID, func() error {
		o = setSysctl(a)
		return nil
	})
	if err != nil {
		return failed(-1, fmt.Errorf("network namespace of %s: %w", a.NetNSOf, err))
	}
	return o
}

// setSysctl writes the file first: after a crash between the two a boot gives
// what was wanted, and the next plan finds the live value still to be set.
func setSysctl(a remediate.SetSysctl) remediate.Outcome {
	if !netKey.MatchString(a.Key) {
		return failed(-1, fmt.Errorf("sysctl %q is not a plain key below net", a.Key))
	}
	path := sysctld.Path(a.Key)
	was, err := kernel.Sysctl(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.Companion:
		return remediate.Outcome{Result: remediate.Skipped, Now: -1, Note: "this kernel or namespace has no " + a.Key}
	case err != nil:
		return failed(-1, err)
	}
	if o, ok := compare(a.Key, was, a.From, a.To, a.Undo); !ok {
		return o
	}
	done := remediate.Outcome{Result: remediate.Applied, Now: was}
	putBack := func() error { return nil }
	if a.File != "" {
		var changed bool
		if putBack, changed, done.Note, err = setFile(a); err != nil {
			return failure(was, err)
		}
		if !changed && a.To == was {
			done.Result = remediate.Skipped
		}
	}
	if a.To == was {
		return done
	}
	if done.Now, err = setLive(path, a.To); err != nil {
		return failed(done.Now, errors.Join(err, putBack()))
	}
	return done
}

// setLive writes a kernel parameter and returns the value that it has then, -1
// where that cannot be read.
func setLive(path string, to int) (now int, err error) {
	f, err := os.OpenFile(kernel.SysctlDir+path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(to) + "\n")
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w; the kernel refuses %d", err, to)
	}
	err = kernel.Explain(kernel.SetSysctl, "", err)
	now, readErr := kernel.Sysctl(path)
	switch {
	case err != nil:
	case readErr != nil:
		err = readErr
	case now != to:
		err = fmt.Errorf("%s is %d after %d was written: the kernel does not take that much", kernel.SysctlDir+path, now, to)
	}
	return now, err
}

// setFile makes the change in the sysctl.d file. putBack undoes it.
func setFile(a remediate.SetSysctl) (putBack func() error, changed bool, note string, err error) {
	f, made, err := openConf(a.File)
	if err != nil {
		return nil, false, "", err
	}
	defer f.close()
	if made {
		note = "made the directory " + f.dir
	}
	old, err := f.read()
	if err != nil {
		return nil, false, "", err
	}
	if holds := sysctld.Value(old.text, a.Key); holds != a.FileFrom {
		return nil, false, "", fmt.Errorf("%s sets %s to %d, not %d: %w", a.File, a.Key, holds, a.FileFrom, errGone)
	}
	text := sysctld.Set(old.text, a.Key, a.To, a.From, a.Why)
	if a.Undo {
		text = sysctld.Unset(old.text, a.Key)
	}
	if bytes.Equal(text, old.text) {
		return func() error { return nil }, false, note, nil
	}
	if err := f.write(text, old); err != nil {
		return nil, false, "", err
	}
	return func() error { return restore(a.File, text, old) }, true, note, nil
}

// restore brings back the text of a file that still is as qwatch left it.
func restore(path string, ours []byte, old confText) error {
	f, _, err := openConf(path)
	if err != nil {
		return err
	}
	defer f.close()
	now, err := f.read()
	if err != nil {
		return err
	}
	if !bytes.Equal(now.text, ours) {
		return fmt.Errorf("%s was changed by somebody else and stays: %w", path, errGone)
	}
	text := old.text
	if !old.there {
		text = nil
	}
	return f.write(text, now)
}
