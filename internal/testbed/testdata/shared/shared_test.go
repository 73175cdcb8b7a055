// Package shared is what TestShared runs.
package shared

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(testbed.Shared(m, 3)) }

// meet waits for the other test, in a process of its own that has its own of
// everything but this directory.
func meet(t *testing.T, me, other string) {
	l, err := net.Listen("tcp", "127.0.0.1:5000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(filepath.Join(os.TempDir(), "here"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(os.TempDir()); len(files) != 1 {
		t.Errorf("not alone in %s: %v", os.TempDir(), files)
	}
	place := os.Getenv("SHARED_PLACE")
	if err := os.WriteFile(filepath.Join(place, me), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = testbed.Until(t.Context(), time.Minute, other+" comes", func() bool {
		_, err := os.Stat(filepath.Join(place, other))
		return err == nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOne(t *testing.T) { t.Run("sub", func(t *testing.T) { meet(t, "one", "two") }) }
func TestTwo(t *testing.T) { t.Run("sub", func(t *testing.T) { meet(t, "two", "one") }) }

func TestFails(t *testing.T) {
	if os.Getenv("SHARED_BAD") != "" {
		t.Error("as it shall")
	}
}

func TestKilled(t *testing.T) {
	if os.Getenv("SHARED_BAD") != "" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

func TestPanics(t *testing.T) {
	if os.Getenv("SHARED_BAD") != "" {
		panic("as it shall")
	}
}

func TestHangs(t *testing.T) {
	if os.Getenv("SHARED_BAD") != "" {
		time.Sleep(time.Hour) // until -timeout
	}
}

func FuzzSeeds(f *testing.F) {
	f.Add(1)
	f.Fuzz(func(*testing.T, int) {})
}
