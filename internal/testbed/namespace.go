// Package testbed runs real uWSGI under load where nothing outside is touched:
// in a network namespace with its own somaxconn, loopback and listen queues, and
// a mount namespace with an empty /etc/sysctl.d.
//
// The integration tests and the demo stand on it. It shares no code with the
// packages that it tests: what it says about a queue it has from ss(8).
package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// stateEnv tells a process what became of the namespaces: "" not tried,
	// entered, or why they could not be had. It is in the environment so that
	// children of a test binary know it too.
	stateEnv = "QWATCH_TESTBED"
	entered  = "entered"

	// StartSomaxconn is net.core.somaxconn in a fresh namespace, as on kernels
	// before 5.4 (listen(2)).
	StartSomaxconn = 128
)

// Main is for a TestMain: it runs m's tests inside the namespaces. Where those
// cannot be had the tests run outside, and Needs skips the ones that ask for
// them. A program that testscript starts under another name than the test
// binary's stays in the namespaces of its parent.
func Main(m interface{ Run() int }) {
	if strings.HasSuffix(filepath.Base(os.Args[0]), ".test") {
		if err := Enter(); err != nil {
			os.Setenv(stateEnv, err.Error())
		}
	}
	os.Exit(m.Run())
}

// Enter runs this program again inside fresh namespaces, and ends the outer
// process with the inner one's status; so it returns nil inside only. Without
// root it makes a user namespace too, in which this user is root. It is called
// first thing in main or TestMain, before files are open or goroutines run.
func Enter() error {
	if os.Getenv(stateEnv) == entered {
		return nil
	}
	if os.Getenv(stateEnv) == "entering" {
		if err := prepare(); err != nil {
			return fmt.Errorf("preparing the namespaces: %w", err)
		}
		return os.Setenv(stateEnv, entered)
	}
	// Pdeathsig follows the thread that forked, not the process (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := inNamespaces(os.Args[1:])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("making network and mount namespaces: %w", err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		fmt.Fprintln(os.Stderr, "testbed:", err) // died of a signal
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

// inNamespaces is this program again, in fresh namespaces that Enter prepares.
// Its caller locks itself to its thread.
func inNamespaces(args []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stateEnv+"=entering")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// prepare sets up the namespaces that this process was started in.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// Here no systemd runs that knows of these uWSGIs: not /run/systemd/system.
	for _, dir := range []string{"/etc/sysctl.d", "/run/sysctl.d", "/run/systemd"} {
		err := unix.Mount("testbed", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("covering %s: %w", dir, err)
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return SetSomaxconn(StartSomaxconn)
}

// Needs skips t, saying why, unless all of these are here: "namespace" (Main
// entered one), "user namespace" (one can be made), "root" (uid 0 on the host,
// not in a user namespace), "uwsgi" (with its python3 plugin), "acl" (access
// control lists for temporary files), "fuse" (MountFUSE works), a file by its absolute path, or any command
// by its name. Where CI is set in the environment
// a skip is a failure. Nothing else in the tree skips a test; make lint looks.
func Needs(t testing.TB, things ...string) {
	t.Helper()
	for _, thing := range things {
		if here, err := Has(thing); err != nil {
			t.Fatalf("cannot run in CI: %v", err)
		} else if !here {
			t.Skipf("cannot run here: %v", missing(thing))
		}
	}
}

// Has tells whether a thing that Needs knows is here, for a condition of
// testscript. Where CI is set, one that is missing is an error.
func Has(thing string) (bool, error) {
	err := missing(thing)
	if err != nil && os.Getenv("CI") == "" {
		return false, nil
	}
	return err == nil, err
}

// missing says why a thing is not here.
func missing(thing string) error {
	switch thing {
	case "user namespace":
		cmd := exec.Command("true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		return cmd.Run()
	case "namespace":
		if state := os.Getenv(stateEnv); state != entered {
			return fmt.Errorf("no namespace of our own (testbed.Main in TestMain makes one): %s", state)
		}
		return nil
	case "root":
		// The host's own user namespace maps every uid (user_namespaces(7)).
		uids, err := os.ReadFile("/proc/self/uid_map")
		if err != nil {
			return err
		}
		if os.Geteuid() != 0 || !strings.HasSuffix(strings.TrimSpace(string(uids)), " 4294967295") {
			return errors.New("not root on this host")
		}
		return nil
	case "uwsgi":
		_, err := findUWSGI()
		return err
	case "fuse":
		if err := missing("namespace"); err != nil {
			return err
		}
		dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return dev.Close()
	case "acl":
		if _, err := unix.Getxattr(os.TempDir(), "system.posix_acl_access", nil); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("no access control lists in %s: %w", os.TempDir(), err)
		}
		return nil
	}
	if filepath.IsAbs(thing) {
		_, err := os.Stat(thing)
		return err
	}
	_, err := exec.LookPath(thing)
	return err
}
