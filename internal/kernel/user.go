package kernel

import (
	"fmt"
	"math"
	"os/user"
	"strconv"
)

// UserID is the uid of a user given by name or number, as systemd takes User=: what
// looks like a number is one (parse_uid, src/basic/user-util.c).
func UserID(name string) (int, error) {
	if uid, ok := id(name); ok {
		return uid, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return -1, fmt.Errorf("user %q: %w", name, err)
	}
	return strconv.Atoi(u.Uid)
}

// groupID is UserID for a group.
func groupID(name string) (int, error) {
	if gid, ok := id(name); ok {
		return gid, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("group %q: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// id reads a number that may be a user's or a group's.
func id(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return int(n), err == nil && n < math.MaxUint32
}

// CredentialsAs are those of a process that a user starts, "" for root, with the
// groups that /etc/group gives him and one more, "" for none. One that systemd
// makes up (DynamicUser=), or another host knows, is not known here.
func CredentialsAs(name, group string) (c Credentials, err error) {
	if name != "" {
		if c.UID, err = UserID(name); err != nil {
			return Credentials{}, err
		}
	}
	if c.UID == 0 {
		return Credentials{ReadsAll: true}, nil
	}
	u, err := user.LookupId(strconv.Itoa(c.UID))
	if err != nil {
		return Credentials{}, err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return Credentials{}, err
	}
	for _, g := range append(groups, u.Gid) {
		if gid, ok := id(g); ok {
			c.GID, c.Groups = gid, append(c.Groups, gid) // the user's own is the last
		}
	}
	if group != "" {
		if c.GID, err = groupID(group); err != nil {
			return Credentials{}, err
		}
		c.Groups = append(c.Groups, c.GID)
	}
	return c, nil
}
