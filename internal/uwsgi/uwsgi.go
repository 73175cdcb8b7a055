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

// Config is what a uWSGI is configured to, as its next start would read it.
type Config struct {
	// Listen is the listen backlog, 0 where it is not known, and At where it
	// stands ("/etc/uwsgi/app.ini:12", "command line", "default").
	Listen int
	At     string
	// File is the first file that an option was read from, "" where none was.
	File string
	// ReloadEnds says why a reload would end it, "" where nothing says so.
	ReloadEnds string
	// Unread says what of all this is not known, nil where all is.
	Unread error
}

// Fill puts what is known into the facts of a socket.
func (c Config) Fill(s *facts.Socket) {
	s.Configured, s.ConfiguredAt, s.ConfigFile, s.ReloadEnds, s.Unread = c.Listen, c.At, c.File, c.ReloadEnds, ""
	if c.Unread != nil {
		s.Unread = c.Unread.Error()
	}
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
func Running(master Process, names []string) (c Config) {
	// A master ends all on SIGQUIT (core/master.c, master_loop). A worker, or a
	// uWSGI without a master, ignores it, and SIGHUP ends it.
	isMaster, err := kernel.Catches(master.PID, unix.SIGQUIT)
	switch {
	case err != nil:
		c.unread(fmt.Errorf("whether it is a master process: %w", err))
	case !isMaster:
		c.ReloadEnds = "it runs without a master process"
	}
	args, err := kernel.Args(master.PID)
	if err != nil {
		c.unread(err)
		return c
	}
	st, _ := kernel.ReadStat(master.PID)
	if st.ArgsSize > size(args) || overwritten(args, names, kernel.Executable(master.PID)) {
		c.unread(errors.New("its command line is overwritten (procname, setproctitle)"))
		return c
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
	return c
}

// Command reads the configuration with which a command would start a uWSGI on
// this host; dir is its working directory. It blocks as Running does.
func Command(args, environ []string, dir string, names []string) (c Config) {
	if overwritten(args, names, "") {
		c.Unread = errors.New("it does not start a uWSGI itself")
		return c
	}
	root, err := kernel.OpenRoot()
	c.read(uwsgiconf.Input{Args: args, Environ: environ, Dirs: []string{filepath.Join("/", dir)}}, root, err)
	return c
}

// read follows the configuration. rootErr says why there is no root.
func (c *Config) read(in uwsgiconf.Input, root kernel.Root, rootErr error) {
	in.Read = root.ReadFile
	if rootErr != nil {
		in.Read = func(string) ([]byte, error) { return nil, rootErr }
	} else {
		defer root.Close()
	}
	in.Hostname, _ = os.Hostname() // uname(2) does not fail
	setting, err := uwsgiconf.Find(in)
	if err == nil {
		c.Listen, c.At = setting.Listen, setting.At
	}
	c.unread(setting.Unread)
	for _, o := range setting.Options {
		if i := strings.LastIndexByte(o.At, ':'); i > 0 && c.File == "" { // FILE:LINE
			c.File = o.At[:i]
		}
	}
	if at := exitOnReload(setting.Options); at != "" && c.ReloadEnds == "" {
		c.ReloadEnds = "exit-on-reload (" + at + ")"
	}
}

// unread keeps the first reason.
func (c *Config) unread(err error) {
	if c.Unread == nil {
		c.Unread = err
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
