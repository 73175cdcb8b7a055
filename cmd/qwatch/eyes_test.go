package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"qwatch/internal/config"
	"qwatch/internal/testbed"
)

// Root without the right to become somebody else is told which that is.
func TestAsAuditWithoutTheRight(t *testing.T) {
	testbed.Needs(t, "root")
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends, with what it lost
		head, caps := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		if err := unix.Capget(&head, &caps[0]); err != nil {
			failed <- err
			return
		}
		const lost = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
		caps[0].Effective &^= lost
		caps[0].Permitted &^= lost
		if err := unix.Capset(&head, &caps[0]); err != nil {
			failed <- err
			return
		}
		_, err := asAudit(t.Context(), "version")
		failed <- err
	}()
	const want = "operation not permitted; needs CAP_SETUID and CAP_SETGID, in the host's user namespace"
	if err := <-failed; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

// Anybody may fill his folder: it is not looked through without an end, and that
// is said.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	list := func() []string {
		return unreadable(&config.Config{Sources: []config.Source{{Files: []string{dir + "/*/*.log"}}}})
	}
	mine, full := filepath.Join(dir, "mine"), filepath.Join(dir, "full")
	if err := errors.Join(os.Mkdir(mine, 0o755), os.WriteFile(filepath.Join(mine, "a.log"), nil, 0), os.Mkdir(full, 0o755)); err != nil {
		t.Fatal(err)
	}
	var want []string
	if unix.Access(filepath.Join(mine, "a.log"), unix.R_OK) != nil { // root reads all
		want = []string{filepath.Join(mine, "a.log")}
	}
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range maxLogs + 1 {
		if err := os.Link(filepath.Join(mine, "a.log"), fmt.Sprintf("%s/%d", full, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(); len(got) != 1 || !strings.Contains(got[0], "it has more than 4096 entries") {
		t.Errorf("%.3q", got)
	}
}
