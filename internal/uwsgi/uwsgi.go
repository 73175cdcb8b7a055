// Package uwsgi reads how a uWSGI is configured: with which listen backlog it
// would start again, and whether a reload would be its end. Looking at a host
// and acting on it both ask here, so that they cannot disagree.
package uwsgi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/text"
	"qwatch/internal/uwsgiconf"
	"qwatch/remediate/facts"
)

// Unseen is a configuration of which nothing is known, and why.
func Unseen(why error) facts.Config {
	return facts.Config{
		Listen: facts.Unknown[facts.Setting](why.Error()), ReloadEnds: facts.Unknown[string](why.Error()), Mode: facts.Unknown[facts.Mode](why.Error()),
	}
}

// Process names a running uWSGI. Contained says that it runs in a container, UID
// as whom, -1 where that is not known. Nothing is in it that a process without
// rights can change.
type Process struct {
	PID       int
	Start     uint64
	Contained bool
	UID       int
}

// ProcessOf is the Process of a master.
func ProcessOf(master facts.Process) Process {
	p := Process{master.PID, master.Start, master.Container != "", -1}
	if master.UID.State == facts.StateKnown {
		p.UID = master.UID.Value
	}
	return p
}

// Running reads the configuration of a running master; names are those of
// uWSGI's executable, and asked is the file that policy.reload.how names, "" for
// none. It reads what that process may read by now: what it read
// as root before it dropped that right it could not read at a reload either,
// and so that is not known. It blocks while a file system, or the process'
// memory, does not answer.
func Running(master Process, names []string, asked string) facts.Config {
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
	in, noEnviron, err := inputOf(master, names)
	if err != nil {
		c.unread(err)
		return c.Config
	}
	c.unread(noEnviron) // any option may stand there, as UWSGI_EXIT_ON_RELOAD
	if activated(in.Environ, master) {
		c.ends("the sockets that it was handed at its start (LISTEN_FDS) are not handed to it again")
	}
	root, err := rootOf(master)
	options := c.read(in, root, err)
	c.orders(master, options, asked)
	if noEnviron != nil && c.Listen.Value.At == "default" { // what a file sets goes before UWSGI_LISTEN
		c.Listen = facts.Unknown[facts.Setting](noEnviron.Error())
	}
	return c.Config
}

// inputOf is how a running uWSGI was started. noEnviron says why its environment
// is not known, which then is empty.
func inputOf(p Process, names []string) (in uwsgiconf.Input, noEnviron, err error) {
	args, err := kernel.Args(p.PID)
	if err != nil {
		return in, nil, err
	}
	st, _ := kernel.ReadStat(p.PID)
	exe := kernel.Executable(p.PID)
	if st.ArgsSize > size(args) || overwritten(args, names, exe) {
		return in, nil, whyNotItsOwn(args, names, exe)
	}
	in.Args = args
	in.Environ, err = kernel.Environ(p.PID)
	if err != nil {
		noEnviron = fmt.Errorf("its environment: %w", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		noEnviron = fmt.Errorf("%w; %s", noEnviron, kernel.SeeAll)
	}
	in.Dirs = startDirs(p.PID, st.PPID, in, names)
	return in, noEnviron, nil
}

// rootOf is the root of a running uWSGI, of which no more is read than it may
// read itself. Without the right to that root, a uWSGI outside of containers
// most likely has qwatch's.
func rootOf(p Process) (kernel.Root, error) {
	as, err := kernel.CredentialsOf(p.PID)
	if err != nil {
		return kernel.Root{}, err
	}
	root, err := kernel.OpenRootOf(p.PID)
	if err != nil && !p.Contained {
		root, err = kernel.OpenRoot()
	}
	return root.As(as), err
}

// startDirs are the folders in which a process may have been started, from which
// uWSGI takes a relative path, the likeliest first. An emperor starts its
// vassals in its own folder, which is the one that it watches (core/emperor.c,
// uwsgi_imperial_monitor_directory), and tells them; any other uWSGI is
// where it was started, or has gone away by chdir.
func startDirs(pid, parent int, in uwsgiconf.Input, names []string) (dirs []string) {
	add := func(dir string) {
		if filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	cwd := func(pid int) string {
		dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		return dir
	}
	_, vassal := variable(in.Environ, "UWSGI_EMPEROR_FD")
	if parentIs, _ := kernel.Named(parent, names); parentIs && (vassal || len(in.Environ) == 0) {
		add(cwd(parent))
	}
	told, _ := variable(in.Environ, "UWSGI_VASSALS_DIR")
	add(told)
	if vassal && len(dirs) > 0 {
		return dirs
	}
	pwd, _ := variable(in.Environ, "PWD")
	if slices.ContainsFunc(in.Args, isEmperor) { // it has gone to the folder of its vassals
		add(pwd)
	}
	add(cwd(pid))
	add(pwd)
	return dirs
}

func isEmperor(arg string) bool {
	name, _, _ := strings.Cut(arg, "=")
	return name == "--emperor"
}

// activated reports whether a process was started with sockets that it was to
// find by the protocol of sd_listen_fds(3): by systemd, of whatever user, or by
// what does the same. uWSGI forgets the variables when it has found them, and the
// exec of a reload starts without (core/socket.c, uwsgi_setup_systemd). In a
// container the process has another number.
func activated(environ []string, p Process) bool {
	fds, _ := variable(environ, "LISTEN_FDS")
	pid, _ := variable(environ, "LISTEN_PID")
	n, _ := strconv.Atoi(fds)
	return n > 0 && (pid == strconv.Itoa(p.PID) || pid != "" && p.Contained)
}

// variable finds one of an environment.
func variable(environ []string, name string) (value string, ok bool) {
	for _, kv := range environ {
		if k, v, is := strings.Cut(kv, "="); is && k == name {
			return v, true
		}
	}
	return "", false
}

// reading is a configuration as far as it was read.
type reading struct{ facts.Config }

// Command is how a service manager starts something.
type Command struct {
	Args    []string
	Environ []string
	Dir     string
	User    string // name or number, "" for root
	Group   string // the same, "" for the user's
}

// Starting reads the configuration with which a command would start a uWSGI on
// this host. It blocks as Running does.
func Starting(cmd Command, names []string) facts.Config {
	if overwritten(cmd.Args, names, "") {
		return Unseen(errors.New("it does not start a uWSGI itself"))
	}
	as, err := kernel.CredentialsAs(cmd.User, cmd.Group)
	if err != nil {
		return Unseen(fmt.Errorf("as whom it starts: %w", err))
	}
	c := reading{Config: facts.Config{ReloadEnds: facts.Absent[string]()}}
	root, err := kernel.OpenRoot()
	c.read(uwsgiconf.Input{Args: cmd.Args, Environ: cmd.Environ, Dirs: []string{filepath.Join("/", cmd.Dir)}}, root.As(as), err)
	return c.Config
}

// find follows a configuration. rootErr says why there is no root; else it is
// closed.
func find(in uwsgiconf.Input, root kernel.Root, rootErr error) (uwsgiconf.Setting, error) {
	in.Read = root.ReadFile
	if rootErr != nil {
		in.Read = func(string) ([]byte, error) { return nil, rootErr }
	} else {
		defer root.Close()
	}
	in.Hostname, _ = os.Hostname() // uname(2) does not fail
	return uwsgiconf.Find(in)
}

// read follows the configuration, and returns the options in it.
func (c *reading) read(in uwsgiconf.Input, root kernel.Root, rootErr error) []uwsgiconf.Option {
	setting, err := find(in, root, rootErr)
	if err == nil {
		c.Listen = facts.Known(facts.Setting{Listen: setting.Listen, At: setting.At})
	} else {
		c.unread(err)
	}
	c.unread(setting.Unread)
	if c.Mode = facts.Known(modeOf(setting.Options)); setting.Unread != nil {
		c.Mode = facts.Unknown[facts.Mode](setting.Unread.Error())
	}
	for _, o := range setting.Options {
		if i := strings.LastIndexByte(o.At, ':'); i > 0 && c.File == "" { // FILE:LINE
			c.File = o.At[:i]
		}
	}
	if found := uwsgiconf.Services(setting.Options); len(found) > 0 {
		var utilities []facts.Utility
		for _, s := range found {
			utilities = append(utilities, facts.Utility{Address: s.Address, Others: others(setting.Options, s.Address), Stats: s.Stats, At: s.Option + ", " + s.At})
		}
		c.Utilities = &utilities
	}
	if at, _ := flag(setting.Options, "exit-on-reload"); at != "" {
		c.ends("exit-on-reload (" + at + ")")
	}
	if o, ok := hangup(setting.Options); ok {
		c.ends("SIGHUP does something else in it (unix_signal in " + o.Name + ", " + o.At + ")")
	}
	return setting.Options
}

// others are all addresses at which a uWSGI listens but this one, with port 0; nil
// where there may be another one of which the kernel chooses the port: a router has a
// hidden socket behind it, and what was inherited may be anywhere.
func others(options []uwsgiconf.Option, address string) (all []string) {
	if !strings.HasSuffix(address, ":0") || oneOf(options, routers) != "" {
		return nil
	}
	all = []string{}
	chosen := 0
	for _, a := range uwsgiconf.Sockets(options) {
		if strings.HasSuffix(a, ":0") {
			chosen++
		} else {
			all = append(all, a)
		}
	}
	unknown := func(o uwsgiconf.Option) bool { return o.Unknown != "" || strings.Contains(o.Text, "fd://") }
	if chosen != 1 || slices.ContainsFunc(options, unknown) {
		return nil
	}
	return all
}

// hangup finds a hook that gives SIGHUP to another function of uWSGI's, most
// likely to one that ends it (core/hooks.c, uwsgi_hook_unix_signal).
func hangup(options []uwsgiconf.Option) (uwsgiconf.Option, bool) {
	for _, o := range options {
		if !strings.HasPrefix(o.Name, "hook-") {
			continue
		}
		_, signal, ok := strings.Cut(o.Text, "unix_signal:")
		if n := 0; ok {
			if fmt.Sscan(signal, &n); n == int(unix.SIGHUP) || n == 0 { // a placeholder that is not known, perhaps
				return o, true
			}
		}
	}
	return uwsgiconf.Option{}, false
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
	known := isUWSGI(args[0], names) || exe != "" && filepath.Base(args[0]) == filepath.Base(exe)
	if len(args) > 1 && exe != "" && isUWSGI(exe, names) {
		known = true // argv[0] is whatever it was started as
	}
	if len(args) == 1 {
		return !known || strings.ContainsAny(args[0], " \t")
	}
	return !known || !slices.ContainsFunc(args[1:], func(arg string) bool { return strings.TrimSpace(arg) != "" })
}

// isUWSGI reports whether a program has a name of uWSGI's: one of names, or as
// distributions call it (uwsgi_python3, uwsgi-core). What stands in argv[0] of
// such a program is the choice of whoever has started it.
func isUWSGI(program string, names []string) bool {
	name := filepath.Base(program)
	return slices.Contains(names, name) || strings.HasPrefix(name, "uwsgi")
}

// whyNotItsOwn says why a command line tells nothing of a uWSGI's configuration.
func whyNotItsOwn(args, names []string, exe string) error {
	if exe != "" && !isUWSGI(exe, names) && len(args) > 0 && filepath.Base(args[0]) != filepath.Base(exe) {
		return fmt.Errorf("it runs inside %s (pyuwsgi, a wrapper, a copy under another name), whose command line is not uWSGI's", text.Line(filepath.Base(exe)))
	}
	return errors.New("its command line is overwritten (procname, setproctitle)")
}
