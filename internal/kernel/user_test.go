package kernel

import (
	"os/user"
	"slices"
	"strconv"
	"testing"
)

// A user may be given by name or number, and a number needs no name.
func TestUserID(t *testing.T) {
	for name, want := range map[string]int{"root": 0, "0": 0, "4294967294": 4294967294, "054": 54} {
		if uid, err := UserID(name); err != nil || uid != want {
			t.Errorf("%s: %d, %v", name, uid, err)
		}
	}
	for _, name := range []string{"nobody-has-this-name", "4294967295", "-1", ""} {
		if uid, err := UserID(name); err == nil || uid != -1 {
			t.Errorf("%q: %d, %v", name, uid, err)
		}
	}
}

func TestCredentialsAs(t *testing.T) {
	for _, name := range []string{"", "root", "0"} {
		if c, err := CredentialsAs(name, "daemon"); err != nil || !c.ReadsAll || c.UID != 0 {
			t.Errorf("%q: %+v, %v", name, c, err)
		}
	}
	daemon, err := user.Lookup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	gid, _ := strconv.Atoi(daemon.Gid)
	for _, name := range []string{daemon.Username, daemon.Uid} {
		if c, err := CredentialsAs(name, ""); err != nil || c.ReadsAll || strconv.Itoa(c.UID) != daemon.Uid || c.GID != gid || !slices.Contains(c.Groups, gid) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		if c, err := CredentialsAs(name, "4242"); err != nil || c.GID != 4242 || !slices.Contains(c.Groups, 4242) || !slices.Contains(c.Groups, gid) {
			t.Errorf("%s with a group: %+v, %v", name, c, err)
		}
	}
	for _, c := range [][2]string{{"nobody-has-this-name", ""}, {"4294967294", ""}, {"daemon", "nobody-has-this-name"}} {
		if got, err := CredentialsAs(c[0], c[1]); err == nil || got.ReadsAll || got.UID != 0 || got.Groups != nil {
			t.Errorf("%q: %+v, %v", c, got, err)
		}
	}
}
