package uwsgi

import (
	"fmt"
	"os"
	"slices"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgiconf"
)

// Claim is what a uWSGI says of the sockets that it listens at. It is the word of
// the process, or of who may write its files: alone it proves nothing.
type Claim struct {
	Addresses []string // as its command line, environment and files write them
	Emperors  []string // folders of its vassals
	// Unread says why there may be more, nil where there are not.
	Unread error
}

// ClaimOf reads what a running uWSGI says. names are those of uWSGI's executable.
// It blocks as Running does.
func ClaimOf(p Process, names []string) Claim {
	c := claimOf(p, names, nil)
	if c.Unread == nil {
		return c
	}
	// A vassal is started in its emperor's folder with the name of its file
	// (core/emperor.c), and may have changed its directory since.
	st, err := kernel.ReadStat(p.PID)
	if err != nil {
		return c
	}
	if emperor, _ := kernel.Named(st.PPID, names); !emperor {
		return c
	}
	dirs := claimOf(Process{PID: st.PPID, Contained: p.Contained}, names, nil).Emperors
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", st.PPID)); err == nil {
		dirs = append([]string{dir}, dirs...)
	}
	if len(dirs) == 0 {
		return c
	}
	return claimOf(p, names, dirs)
}

func claimOf(p Process, names, dirs []string) (c Claim) {
	in, _, err := inputOf(p, names) // the environment has more, most often nothing
	if err != nil {
		c.Unread = err
		return c
	}
	in.Dirs = append(slices.Clone(dirs), in.Dirs...)
	root, err := rootOf(p)
	setting, _ := find(in, root, err)
	c.Addresses, c.Emperors = uwsgiconf.Sockets(setting.Options), uwsgiconf.Emperors(setting.Options)
	c.Unread = setting.Unread
	return c
}
