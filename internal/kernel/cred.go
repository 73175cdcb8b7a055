package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Credentials are the rights with which a process reads files.
type Credentials struct {
	UID, GID int // fsuid and fsgid, as qwatch's user namespace shows them
	Groups   []int
	// ReadsAll is CAP_DAC_READ_SEARCH or CAP_DAC_OVERRIDE in the initial user
	// namespace: one of another namespace is no right to this host's files.
	ReadsAll bool
}

const (
	// initUserNS is the inode of the initial user namespace (PROC_USER_INIT_INO,
	// include/linux/proc_ns.h).
	initUserNS = 0xEFFFFFFD
	// overflowID stands for the ids that have no name in a user namespace
	// (user_namespaces(7)).
	overflowID = 65534
)

// CredentialsOf are those of a process, to be held against each file that it is
// said to have read. They are what it has now: uWSGI may have dropped others.
func CredentialsOf(pid int) (c Credentials, err error) {
	path := procPath(pid, "status")
	status, err := read(path)
	if err != nil {
		return c, err
	}
	// Real, effective, saved, file system.
	uids, err1 := numbers(status, "Uid")
	gids, err2 := numbers(status, "Gid")
	groups, err3 := numbers(status, "Groups")
	capabilities, err4 := field(status, "CapEff")
	if err := errors.Join(err1, err2, err3, err4); err != nil || len(uids) != 4 || len(gids) != 4 {
		return c, fmt.Errorf("%s: %w", path, errors.Join(err, errors.New("not the users of a process")))
	}
	c = Credentials{UID: uids[3], GID: gids[3], Groups: groups}
	if effective, err := strconv.ParseUint(string(capabilities), 16, 64); err == nil {
		const all = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
		ns, err := inode(procPath(pid, "ns/user"))
		c.ReadsAll = effective&all != 0 && err == nil && ns == initUserNS
	}
	return c, nil
}

// numbers reads a line of /proc/PID/status that is a list of them.
func numbers(status []byte, name string) (list []int, err error) {
	value, err := field(status, name)
	if err != nil {
		return nil, err
	}
	for digits := range bytes.FieldsSeq(value) {
		n, err := strconv.Atoi(string(digits))
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

func (c Credentials) in(gid uint32) bool {
	return int(gid) == c.GID || slices.Contains(c.Groups, int(gid))
}

// What a file is wanted for, as in a mode.
const (
	toNothing = 0
	toRead    = 4
	toSearch  = 1
	toRun     = 1 | 1<<16 // the same bit, which root needs as well
)

// may returns why a process with these rights may not read or search what is
// open as fd, nil where it may (acl(5), ACCESS CHECK ALGORITHM). It says no where
// that cannot be told.
func (c Credentials) may(want uint32, fd int, st *unix.Stat_t) error {
	denied := fmt.Errorf("user %d, as which it runs, may not: %w", c.UID, unix.EACCES)
	acl, err := aclOf(fd)
	switch {
	case c.ReadsAll:
		return nil
	case c.UID == overflowID && !ownsAllIDs():
		return fmt.Errorf("its user has no id here: %w", unix.EACCES)
	case err != nil:
		return err
	case acl == nil && allows(c.bits(st), want), acl != nil && c.allowedBy(acl, st, want):
		return nil
	}
	return denied
}

func allows(bits, want uint32) bool { return bits&(want&7) == want&7 }

// bits are those of a mode that count for the process.
func (c Credentials) bits(st *unix.Stat_t) uint32 {
	switch {
	case int(st.Uid) == c.UID:
		return st.Mode >> 6 & 7
	case c.in(st.Gid):
		return st.Mode >> 3 & 7
	}
	return st.Mode & 7
}

// Entries of an access control list (include/uapi/linux/posix_acl.h).
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

type aclEntry struct {
	Tag, Perm uint16
	ID        uint32
}

// aclOf reads the access control list of an open file, nil where it has none.
func aclOf(fd int) ([]aclEntry, error) {
	b := make([]byte, 4+8*1024)
	n, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(fd), "system.posix_acl_access", b)
	switch {
	case errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("its access control list: %w", err)
	case n < 4 || binary.LittleEndian.Uint32(b) != 2: // POSIX_ACL_XATTR_VERSION
		return nil, errors.New("its access control list is of a kind that is not known")
	}
	entries := make([]aclEntry, (n-4)/8)
	return entries, binary.Read(bytes.NewReader(b[4:n]), binary.LittleEndian, entries)
}

// allowedBy is posix_acl_permission (fs/posix_acl.c).
func (c Credentials) allowedBy(acl []aclEntry, st *unix.Stat_t, want uint32) bool {
	mask := uint32(7)
	for _, e := range acl {
		if e.Tag == aclMask {
			mask = uint32(e.Perm)
		}
	}
	inGroup := false
	for _, e := range acl { // in the order of their tags
		perm := uint32(e.Perm)
		switch {
		case e.Tag == aclUserObj && int(st.Uid) == c.UID:
			return allows(perm, want)
		case e.Tag == aclUser && int(e.ID) == c.UID:
			return allows(perm&mask, want)
		case e.Tag == aclGroupObj && c.in(st.Gid), e.Tag == aclGroup && c.in(e.ID):
			if inGroup = true; allows(perm&mask, want) {
				return true
			}
		case e.Tag == aclOther:
			return !inGroup && allows(perm, want)
		}
	}
	return false
}

// ownsAllIDs reports whether every id has a name in qwatch's user namespace.
func ownsAllIDs() bool {
	ns, err := inode("/proc/self/ns/user")
	return err == nil && ns == initUserNS
}
