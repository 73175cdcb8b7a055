package file

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Between the look at a name and its opening, whoever may write to the folder
// of logs can make it lead to a device.
func TestOpenFileOpensNoDevice(t *testing.T) {
	link := filepath.Join(t.TempDir(), "app.log")
	if err := os.Symlink("/dev/zero", link); err != nil {
		t.Fatal(err)
	}
	fd, _, _, err := openFile(link)
	if err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, errNotRegular) {
		t.Errorf("open a link to /dev/zero: %v, want: %v", err, errNotRegular)
	}
}
