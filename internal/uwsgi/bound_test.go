package uwsgi

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"qwatch/internal/testbed"
)

// What a uWSGI says of its sockets is read with its own rights: nobody makes
// qwatch read a file for him.
func TestClaimOf(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "root")
	dir := t.TempDir()
	ini, secret, socket := filepath.Join(dir, "app.ini"), filepath.Join(dir, "secret"), filepath.Join(dir, "stats")
	err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755),
		os.WriteFile(ini, []byte("[uwsgi]\nstats = @("+secret+")\n"), 0o644), os.WriteFile(secret, []byte(socket), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	const address = "127.0.0.1:5349"
	u := testbed.Run(t, testbed.Options{Address: address, User: "nobody", Args: []string{"--ini", ini}})
	for mode, want := range map[os.FileMode][]string{0o644: {address, socket}, 0o600: {address}} {
		if err := os.Chmod(secret, mode); err != nil {
			t.Fatal(err)
		}
		c := ClaimOf(Process{PID: u.Pid}, names)
		if slices.Contains(c.Addresses, socket) != (mode == 0o644) || !slices.Contains(c.Addresses, address) {
			t.Errorf("mode %o: %q, %v, want %q", mode, c.Addresses, c.Unread, want)
		}
	}
}
