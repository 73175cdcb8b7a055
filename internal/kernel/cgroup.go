package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// onePage is how much of cgroup.procs one read gives at least before it breaks
// off (seq_read_iter, fs/seq_file.c).
const onePage = 4096 - 16

// Cgroup2 tells cgroups (v2) by the ids that sock_diag gives: the inode of the
// cgroup's directory. They are looked up from a path, as /proc/PID/cgroup has it,
// which needs no right; the way back would (open_by_handle_at(2)).
type Cgroup2 struct {
	mount string // "" where there is no such hierarchy
	ids   map[string]uint64
}

// OpenCgroup2 finds the hierarchy: the whole of /sys/fs/cgroup, or a part of it
// where a host still has the first version beside it.
func OpenCgroup2() *Cgroup2 {
	c := &Cgroup2{ids: map[string]uint64{}}
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(mount, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			c.mount = mount
			break
		}
	}
	return c
}

// ID is the id of the cgroup that the text of /proc/PID/cgroup names. It is 0
// where that is not known, and for the root, which tells nobody apart.
func (c *Cgroup2) ID(text string) uint64 {
	dir := c.dir(text)
	if dir == "" {
		return 0
	}
	id, ok := c.ids[dir]
	if !ok {
		id, _ = inode(dir) // 0 where it has gone meanwhile
		c.ids[dir] = id
	}
	return id
}

// Processes lists the processes in that very cgroup. The error says why that is
// not known.
func (c *Cgroup2) Processes(text string) (pids []int, err error) {
	dir := c.dir(text)
	if dir == "" {
		return nil, unix.ENOENT
	}
	b, err := read(dir + "/cgroup.procs")
	if err != nil {
		return nil, err
	}
	if len(b) >= onePage {
		return nil, fmt.Errorf("%s: more processes than one read tells", dir)
	}
	for field := range bytes.FieldsSeq(b) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Frozen reports whether the cgroup that the text of /proc/PID/cgroup names is
// frozen, as `docker pause` does: itself or one above it, which cgroup.events says of
// both alike (Documentation/admin-guide/cgroup-v2.rst), or by the freezer of the first
// version. Where neither is mounted nothing can be. The error says why that is not
// known.
func (c *Cgroup2) Frozen(text string) (bool, error) {
	for line := range strings.Lines(text) {
		if c.mount != "" && (line == "0::/..\n" || strings.HasPrefix(line, "0::/../")) {
			return false, errors.New("its cgroup lies outside of qwatch's cgroup namespace")
		}
	}
	if dir := c.dir(text); dir != "" {
		b, err := read(dir + "/cgroup.events")
		switch value, _ := after(b, "frozen "); {
		case errors.Is(err, fs.ErrNotExist): // it has just gone
		case err != nil:
			return false, err
		case value == "1":
			return true, nil
		}
	}
	for line := range strings.Lines(text) {
		controller := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(controller) != 3 || controller[1] != "freezer" || path.Clean(controller[2]) != controller[2] {
			continue
		}
		// In the root there is no such file, and elsewhere FREEZING counts too.
		b, err := read("/sys/fs/cgroup/freezer" + controller[2] + "/freezer.state")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return err == nil && strings.TrimSpace(string(b)) != "THAWED", nil
	}
	return false, nil
}

// after is what stands behind the name in one of the lines.
func after(text []byte, name string) (value string, ok bool) {
	for line := range bytes.Lines(text) {
		if rest, is := bytes.CutPrefix(line, []byte(name)); is {
			return string(bytes.TrimSpace(rest)), true
		}
	}
	return "", false
}

// dir is the directory of a cgroup, "" for none that can be told. A path that
// leads out of the reader's cgroup namespace begins with "/.."
// (cgroup_namespaces(7)).
func (c *Cgroup2) dir(text string) string {
	if c.mount == "" {
		return ""
	}
	for line := range strings.Lines(text) {
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(name, " (deleted)")
		if name == "/" || name == "" || strings.HasPrefix(name, "/..") || path.Clean(name) != name {
			return ""
		}
		return c.mount + name
	}
	return ""
}

// CgroupOf is the text of /proc/PID/cgroup.
func CgroupOf(pid int) (string, error) {
	b, err := read(procPath(pid, "cgroup"))
	return string(b), err
}

// AllUsers reports whether this process sees the numbers of all users. In a user
// namespace those that it does not map are all the same one
// (user_namespaces(7), "unmapped user IDs").
func AllUsers() bool {
	b, err := read("/proc/self/uid_map")
	f := bytes.Fields(b)
	return err == nil && len(f) == 3 && string(f[0]) == "0" && string(f[2]) == "4294967295"
}
