package kernel

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/testbed"
)

// What a process may read, it is said to have read, and nothing else.
func TestRootAs(t *testing.T) {
	testbed.Needs(t, "root")
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, uid, gid int) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o600), os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("open", 0o644, 0, 0)
	write("shadow", 0o600, 0, 0)
	write("mine", 0o400, 33, 33)
	write("notmine", 0o044, 33, 33) // the owner's bits count for the owner
	write("group", 0o640, 0, 44)
	write("notgroup", 0o604, 0, 44)
	write("closed/open", 0o644, 0, 0)
	if err := errors.Join(os.Chmod(filepath.Join(dir, "closed"), 0o700), os.Chmod(dir, 0o755), os.Symlink("shadow", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	r, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	user, root := Credentials{UID: 33, GID: 33, Groups: []int{44}}, Credentials{ReadsAll: true}
	for path, may := range map[string]bool{
		"open": true, "shadow": false, "mine": true, "notmine": false, "group": true, "notgroup": false, "closed/open": false, "link": false,
	} {
		if _, err := r.As(user).ReadFile(path); (err == nil) != may || err != nil && !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v, may %v", path, err, may)
		}
		if _, err := r.As(root).ReadFile(path); err != nil {
			t.Errorf("%s as root: %v", path, err)
		}
	}
}

// The kernel answers in these files, and as the one who asks.
func TestRootKernelsOwn(t *testing.T) {
	r, err := OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, path := range []string{"/proc/self/environ", "/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		if _, err := r.ReadFile(path); !errors.Is(err, errKernelsOwn) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestACL(t *testing.T) {
	testbed.Needs(t, "acl")
	st := &unix.Stat_t{Uid: 1, Gid: 10, Mode: 0o664}
	acl := []aclEntry{{aclUserObj, 6, 0}, {aclUser, 4, 2}, {aclUser, 6, 3}, {aclUser, 0, 4}, {aclGroupObj, 0, 0}, {aclGroup, 4, 20}, {aclMask, 4, 0}, {aclOther, 4, 0}}
	for _, test := range []struct {
		c    Credentials
		want bool
	}{
		{Credentials{UID: 1}, true}, {Credentials{UID: 2}, true}, {Credentials{UID: 3}, true}, {Credentials{UID: 4}, false},
		{Credentials{UID: 9, GID: 10}, false}, {Credentials{UID: 9, GID: 20}, true}, {Credentials{UID: 9, GID: 9, Groups: []int{10, 20}}, true},
		{Credentials{UID: 9, GID: 9}, true},
	} {
		if got := test.c.allowedBy(acl, st, toRead); got != test.want {
			t.Errorf("%+v: %v", test.c, got)
		}
	}
	if (Credentials{UID: 3}).allowedBy(acl, st, toSearch) {
		t.Error("the mask does not count")
	}
}

// A list that a file really has.
func TestACLOfFile(t *testing.T) {
	testbed.Needs(t, "acl")
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if acl, err := aclOf(int(f.Fd())); acl != nil || err != nil {
		t.Errorf("without one: %v, %v", acl, err)
	}
	b := binary.LittleEndian.AppendUint32(nil, 2)
	want := []aclEntry{{aclUserObj, 6, 1<<32 - 1}, {aclUser, 4, 33}, {aclGroupObj, 0, 1<<32 - 1}, {aclMask, 4, 1<<32 - 1}, {aclOther, 0, 1<<32 - 1}}
	b, _ = binary.Append(b, binary.LittleEndian, want)
	if err := unix.Setxattr(path, "system.posix_acl_access", b, 0); err != nil {
		t.Fatal(err)
	}
	acl, err := aclOf(int(f.Fd()))
	if err != nil || len(acl) != len(want) {
		t.Fatalf("%v, %v", acl, err)
	}
	for i := range want {
		if acl[i] != want[i] {
			t.Errorf("entry %d: %v, want %v", i, acl[i], want[i])
		}
	}
}

func TestCredentialsOf(t *testing.T) {
	c, err := CredentialsOf(os.Getpid())
	if err != nil || c.UID != os.Geteuid() || c.GID != os.Getegid() {
		t.Errorf("%+v, %v", c, err)
	}
}

// What qwatch itself may not look at is not taken for what is not there, or not for
// the process.
func TestRootBlind(t *testing.T) {
	testbed.Needs(t, "root")
	dir := t.TempDir()
	closed := filepath.Join(dir, "closed")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(closed, "below"), 0o755), os.WriteFile(filepath.Join(closed, "app.py"), nil, 0o644),
		os.MkdirAll(filepath.Join(dir, "made", "__pycache__"), 0o755), os.Chown(filepath.Join(dir, "made", "__pycache__"), 33, 33),
		os.Chmod(filepath.Join(dir, "made", "__pycache__"), 0o700),
		os.Symlink("closed/app.py", filepath.Join(dir, "link.py")), os.Chown(closed, 33, 33), os.Chmod(closed, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	own, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	r := own.As(Credentials{UID: 33, GID: 33})
	names := Names{
		Within: true, Made: "__pycache__",
		Files: func(name string) bool { return filepath.Ext(name) == ".py" },
		Leave: func(full string) bool {
			return full == "/made" || full == "/closed" || filepath.Base(full) == "__pycache__"
		},
		Source: func(string) string { return "" },
	}
	looks := map[string]func() error{
		"a file":   func() error { _, err := r.Look("/closed/app.py"); return err },
		"its text": func() error { _, err := r.ReadFile("/closed/app.py"); return err },
		"a folder": func() error {
			_, err := r.Newest("/closed", names, &Bound{10, time.Now().Add(time.Minute), nil})
			return err
		},
		"behind a link": func() error {
			_, err := r.Newest("/", names, &Bound{100, time.Now().Add(time.Minute), nil})
			return err
		},
		"what was made": func() error {
			_, err := r.Newest("/made", names, &Bound{10, time.Now().Add(time.Minute), nil})
			return err
		},
		"a pattern":       func() error { _, err := r.Glob("/closed/*.py"); return err },
		"below a pattern": func() error { _, err := r.Glob("/c*/app.py"); return err },
	}
	for name, look := range looks {
		if err := look(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil { // of this thread alone, with CAP_DAC_READ_SEARCH (capabilities(7))
		t.Fatal(err)
	}
	defer unix.Setfsuid(0)
	for name, look := range looks {
		if err := look(); !errors.Is(err, ErrBlind) || NotThere(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := own.Look("/closed/app.py"); errors.Is(err, ErrBlind) || !NotThere(err) {
		t.Errorf("for qwatch itself: %v", err)
	}
}
