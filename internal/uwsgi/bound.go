package uwsgi

import (
	"errors"
	"fmt"
	"os"
	"strings"

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
	args, err := kernel.Args(p.PID)
	if err != nil {
		c.Unread = err
		return c
	}
	st, _ := kernel.ReadStat(p.PID)
	if st.ArgsSize > size(args) || overwritten(args, names, kernel.Executable(p.PID)) {
		c.Unread = errors.New("its command line is overwritten (procname, setproctitle)")
		return c
	}
	in := uwsgiconf.Input{Args: args, Dirs: dirs}
	in.Environ, _ = kernel.Environ(p.PID) // which has more, most often none
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.PID)); err == nil {
		in.Dirs = append(in.Dirs, cwd)
	}
	for _, v := range in.Environ {
		if pwd, ok := strings.CutPrefix(v, "PWD="); ok {
			in.Dirs = append(in.Dirs, pwd)
		}
	}
	root, err := kernel.OpenRootOf(p.PID)
	if err != nil && !p.Contained {
		root, err = kernel.OpenRoot() // as in Running
	}
	if err != nil {
		in.Read = func(string) ([]byte, error) { return nil, err }
	} else {
		defer root.Close()
		in.Read = root.ReadFile
	}
	in.Hostname, _ = os.Hostname() // uname(2) does not fail
	setting, _ := uwsgiconf.Find(in)
	c.Addresses, c.Emperors = uwsgiconf.Sockets(setting.Options), uwsgiconf.Emperors(setting.Options)
	c.Unread = setting.Unread
	return c
}
