// Package uwsgi reads how a uWSGI is configured: with which listen backlog it
// would start again, and whether a reload would be its end. Looking at a host
// and acting on it both ask here, so that they cannot disagree.
package uwsgi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgiconf"
	"qwatch/remediate/facts"
)

// Unseen is a configuration of which nothing is known, and why.
func Unseen(why error) facts.Config {
	return facts.Config{Listen: facts.Unknown[facts.Setting](why.Error()), ReloadEnds: facts.Unknown[string](why.Error())}
}

// Process names a running uWSGI. Contained says that it runs in a container.
// Nothing is in it that a process can change.
type Process struct {
	PID       int
	Start     uint64
	Contained bool
}

// ProcessOf is the Process of a master.
func ProcessOf(master facts.Process) Process {
	return Process{master.PID, master.Start, master.Container != ""}
}

// Running reads the configuration of a running master; names are those of
// uWSGI's executable. It blocks while a file system, or the process' memory,
// does not answer.
func Running(master Process, names []string) facts.Config {
	c := reading{Config: facts.Config{ReloadEnds: facts.Absent[string]()}}
	// A master ends all on SIGQUIT (core/master.c, master_loop). A worker, or a
	// uWSGI without a master, ignores it, and SIGHUP ends it.
	isMaster, err := kernel.Catches(master.PID, unix.SIGQUIT)
	switch {
	case err != nil:
		c.unread(fmt.Errorf("whether it is a master process: %w", err))
	case !isMaster:
		c.ends("it runs without a master process")
	}
	args, err := kernel.Args(master.PID)
	if err != nil {
		c.unread(err)
		return c.Config
	}
	st, _ := kernel.ReadStat(master.PID)
	if st.ArgsSize > size(args) || overwritten(args, names, kernel.Executable(master.PID)) {
		c.unread(errors.New("its command line is overwritten (procname, setproctitle)"))
		return c.Config
	}
	in := uwsgiconf.Input{Args: args}
	in.Environ, err = kernel.Environ(master.PID)
	if err != nil { // any option may stand there, as UWSGI_EXIT_ON_RELOAD
		c.unread(kernel.Explain(kernel.ListOpen, "its environment", err))
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", master.PID)); err == nil {
		in.Dirs = append(in.Dirs, cwd)
	}
	for _, v := range in.Environ {
		if pwd, ok := strings.CutPrefix(v, "PWD="); ok {
			in.Dirs = append(in.Dirs, pwd)
		}
	}
	root, err := kernel.OpenRootOf(master.PID)
	if err != nil && !master.Contained {
		// Without the right to that, a uWSGI outside of containers most likely
		// has qwatch's root.
		root, err = kernel.OpenRoot()
	}
	c.read(in, root, err)
	return c.Config
}

// reading is a configuration as far as it was read.
type reading struct{ facts.Config }

// Command reads the configuration with which a command would start a uWSGI on
// this host; dir is its working directory. It blocks as Running does.
func Command(args, environ []string, dir string, names []string) facts.Config {
	if overwritten(args, names, "") {
		return Unseen(errors.New("it does not start a uWSGI itself"))
	}
	c := reading{Config: facts.Config{ReloadEnds: facts.Absent[string]()}}
	root, err := kernel.OpenRoot()
	c.read(uwsgiconf.Input{Args: args, Environ: environ, Dirs: []string{filepath.Join("/", dir)}}, root, err)
	return c.Config
}

// read follows the configuration. rootErr says why there is no root.
func (c *reading) read(in uwsgiconf.Input, root kernel.Root, rootErr error) {
	in.Read = root.ReadFile
	if rootErr != nil {
		in.Read = func(string) ([]byte, error) { return nil, rootErr }
	} else {
		defer root.Close()
	}
	in.Hostname, _ = os.Hostname() // uname(2) does not fail
	setting, err := uwsgiconf.Find(in)
	if err == nil {
		c.Listen = facts.Known(facts.Setting{Listen: setting.Listen, At: setting.At})
	} else {
		c.unread(err)
	}
	c.unread(setting.Unread)
	for _, o := range setting.Options {
		if i := strings.LastIndexByte(o.At, ':'); i > 0 && c.File == "" { // FILE:LINE
			c.File = o.At[:i]
		}
	}
	if at := exitOnReload(setting.Options); at != "" {
		c.ends("exit-on-reload (" + at + ")")
	}
}

// ends keeps the first reason why a reload ends it, which holds whatever else
// is not known.
func (c *reading) ends(why string) {
	if c.ReloadEnds.State != facts.StateKnown {
		c.ReloadEnds = facts.Known(why)
	}
}

// unread keeps the first reason why something is not known.
func (c *reading) unread(err error) {
	switch {
	case err == nil:
		return
	case c.ReloadEnds.IsAbsent():
		c.ReloadEnds = facts.Unknown[string](err.Error())
	}
	if c.Listen == (facts.Fact[facts.Setting]{}) {
		c.Listen = facts.Unknown[facts.Setting](err.Error())
	}
}

// exitOnReload tells where exit-on-reload is set, "" if nowhere.
func exitOnReload(options []uwsgiconf.Option) (at string) {
	for _, o := range options {
		if o.Name != "exit-on-reload" {
			continue
		}
		off := slices.Contains([]string{"false", "off", "no", "0"}, strings.ToLower(o.Text)) // uwsgi_opt_true
		switch {
		case o.Unknown != "":
			at = o.At + ", " + o.Unknown
		case !off:
			at = o.At
		case !o.Conditional:
			at = ""
		}
	}
	return at
}

// size is how many bytes a command line has in memory.
func size(args []string) (n uint64) {
	for _, arg := range args {
		n += uint64(len(arg)) + 1
	}
	return n
}

// overwritten reports whether a command line is not the one that a uWSGI was
// started with: its process has written a title over it. Such a title is all
// that is left, and the rest is blank (core/utils.c uwsgi_set_processname). exe
// is the path of the executable, "" where it is not known.
func overwritten(args, names []string, exe string) bool {
	if len(args) == 0 {
		return true
	}
	name := filepath.Base(args[0])
	known := slices.Contains(names, name) || strings.HasPrefix(name, "uwsgi") || exe != "" && name == filepath.Base(exe)
	if len(args) == 1 {
		return !known || strings.ContainsAny(args[0], " \t")
	}
	return !known || !slices.ContainsFunc(args[1:], func(arg string) bool { return strings.TrimSpace(arg) != "" })
}
