package uwsgi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgiconf"
	"qwatch/remediate/facts"
)

// routers are the options that make a master start a gateway: those of the plugins
// http, fastrouter, rawrouter, sslrouter, forkptyrouter, tuntap and zergpool that
// register one (register_gateway).
var routers = strings.Fields("http httprouter https https2 http2 http-to-https http-zerg http-subscription-server " +
	"fastrouter fastrouter-zerg fastrouter-subscription-server rawrouter rawrouter-zerg rawrouter-subscription-server " +
	"sslrouter sslrouter2 sslrouter-sni sslrouter-zerg sslrouter-subscription-server " +
	"forkptyrouter forkpty-router forkptyurouter forkpty-urouter forkptyrouter-zerg tuntap-router")

// zergs are the options by which several masters share their sockets.
var zergs = []string{"zerg", "zerg-server", "zergpool", "zerg-pool"}

// watches are the options that name a file which a master watches. Where one file
// stands in several, uWSGI does all of that.
var watches = strings.Fields("touch-reload touch-workers-reload touch-chain-reload fs-reload master-fifo " +
	"touch-mules-reload touch-spoolers-reload touch-logrotate touch-logreopen touch-exec touch-signal touch-gracefully-stop " +
	"hook-touch fs-brutal-reload fs-signal")

const masterFIFO = "master-fifo"

// maxWatched is of how many options the files are looked at.
const maxWatched = 64

// ordersIn are what the options say by themselves.
func ordersIn(options []uwsgiconf.Option) (o facts.Orders) {
	if at, sure := flag(options, "lazy-apps"); sure {
		o.LazyApps = at
	}
	o.Router, o.Zerg, o.Emperor = oneOf(options, routers), oneOf(options, zergs), oneOf(options, []string{"emperor"})
	o.FIFO, o.Asked = facts.Absent[facts.FIFO](), facts.Absent[facts.Trigger]()
	return o
}

// flag tells where an option without a value is set, "" if nowhere. One that may
// not hold counts as set, though not for sure.
func flag(options []uwsgiconf.Option, name string) (at string, sure bool) {
	for _, o := range options {
		if o.Name != name {
			continue
		}
		switch {
		case o.Unknown != "":
			at, sure = o.At+", "+o.Unknown, false
		case !o.Off():
			at, sure = o.At, sure || !o.Conditional
		case o.Conditional:
			sure = false
		default:
			at, sure = "", false
		}
	}
	return at, sure
}

// oneOf is the first of these options that is set, and where.
func oneOf(options []uwsgiconf.Option, names []string) string {
	for _, o := range options {
		if slices.Contains(names, o.Name) {
			return o.Name + ", " + o.At
		}
	}
	return ""
}

// orders adds what the files are that the options name. asked is the file that
// policy.reload.how names, "" for none.
func (c *reading) orders(p Process, options []uwsgiconf.Option, asked string) {
	c.Orders = ordersIn(options)
	watched := slices.DeleteFunc(slices.Clone(options), func(o uwsgiconf.Option) bool { return !slices.Contains(watches, o.Name) })
	if len(watched) == 0 && asked == "" {
		return
	}
	if len(watched) > maxWatched { // each costs a walk over a path, and anybody may write ten thousand
		why := fmt.Sprintf("it watches %d files, of which no more than %d are looked at", len(watched), maxWatched)
		c.Orders.FIFO, c.Orders.Asked = facts.Unknown[facts.FIFO](why), facts.Unknown[facts.Trigger](why)
		return
	}
	f, err := findFiles(p)
	if err != nil {
		c.Orders.FIFO, c.Orders.Asked = facts.Unknown[facts.FIFO](err.Error()), facts.Unknown[facts.Trigger](err.Error())
		return
	}
	defer f.root.Close()
	c.Orders.FIFO = f.fifo(p.PID, watched)
	if asked != "" {
		c.Orders.Asked = f.asked(p.PID, asked, watched)
	}
}

// files are those of a running uWSGI, as it sees them.
type files struct {
	root kernel.Root
	cwd  string // which a relative name begins in
	own  bool   // what it calls a file, qwatch calls so too
}

func findFiles(p Process) (f files, err error) {
	if f.root, err = rootOf(p); err != nil {
		return f, err
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.PID))
	if f.own = !p.Contained; err == nil && f.own {
		f.cwd = cwd
	}
	return f, nil
}

// find finds the file that an option names; why says why that is not known. It is
// not there where both are zero.
func (f files) find(o uwsgiconf.Option) (path string, id kernel.FileID, why string) {
	path = o.Text
	switch o.Name {
	case "touch-exec", "touch-signal", "hook-touch", "fs-signal": // FILE WHAT
		path, _, _ = strings.Cut(path, " ")
	}
	switch {
	case o.Unknown != "":
		return path, id, fmt.Sprintf("%s (%s): %s", o.Name, o.At, o.Unknown)
	case o.Conditional:
		return path, id, fmt.Sprintf("%s (%s) stands in a condition, which is not evaluated", o.Name, o.At)
	}
	if !filepath.IsAbs(path) {
		if f.cwd == "" {
			return path, id, fmt.Sprintf("%s (%s) is relative, and the directory of uWSGI is not known", o.Name, o.At)
		}
		path = f.cwd + "/" + path // whose ".." a link may lead elsewhere
	}
	id, err := f.root.Find(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		why = fmt.Sprintf("%s (%s): %v", o.Name, o.At, err)
	}
	return path, id, why
}

// fifo is the master FIFO that the master has open: of several it reads one.
func (f files) fifo(pid int, watched []uwsgiconf.Option) facts.Fact[facts.FIFO] {
	fact := facts.Absent[facts.FIFO]()
	for _, o := range watched {
		if o.Name != masterFIFO {
			continue
		}
		path, id, why := f.find(o)
		if why == "" && id != (kernel.FileID{}) {
			switch held, err := f.open(pid, id); {
			case held && f.own:
				if why = elsewhere(path, id, o); why == "" {
					return facts.Known(facts.FIFO{Path: path, Cannot: cannot(kernel.MayWrite(path))})
				}
			case held:
				why = fmt.Sprintf("%s (%s) is a container's", o.Name, o.At)
			case err != nil:
				why = err.Error()
			}
		}
		if why != "" {
			fact = facts.Unknown[facts.FIFO](why)
		}
	}
	return fact
}

// elsewhere says why a path that is a file to uWSGI is not that to qwatch, "" where
// it is, or where qwatch may not look.
func elsewhere(path string, id kernel.FileID, o uwsgiconf.Option) string {
	own, _, err := kernel.IDOf(path)
	switch {
	case err == nil && own == id, errors.Is(err, fs.ErrPermission):
		return ""
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("%s (%s) is not the file %s that qwatch sees: one of the two has a view of files of its own (PrivateTmp=, RootDirectory=, chroot)", o.Name, o.At, path)
	}
	return fmt.Sprintf("%s (%s): %v", o.Name, o.At, err)
}

// asked is what a file is to this uWSGI. Where it is several things, that comes
// first which is not a reload.
func (f files) asked(pid int, asked string, watched []uwsgiconf.Option) facts.Fact[facts.Trigger] {
	wanted, fifo, err := kernel.IDOf(asked)
	if err != nil {
		return facts.Unknown[facts.Trigger](err.Error())
	}
	fact := facts.Absent[facts.Trigger]()
	if fifo { // it may have others open, as its log
		for _, o := range watched {
			if o.Name != masterFIFO {
				continue
			}
			_, id, why := f.find(o)
			if why == "" && id == wanted {
				held, err := f.open(pid, wanted)
				if held {
					return facts.Known(facts.Trigger{Option: masterFIFO, Cannot: cannot(kernel.MayWrite(asked))})
				}
				if err != nil {
					why = err.Error()
				}
			}
			if why != "" {
				fact = facts.Unknown[facts.Trigger](why)
			}
		}
		return fact
	}
	for _, o := range watched {
		if o.Name == masterFIFO {
			continue
		}
		_, id, why := f.find(o)
		t, known := fact.Get()
		switch {
		case why != "" && !known:
			fact = facts.Unknown[facts.Trigger](why)
		case id == wanted && (!known || t.Reloads()):
			fact = facts.Known(facts.Trigger{Option: o.Name, At: o.At, Cannot: cannot(kernel.MayTouch(asked))})
		}
	}
	return fact
}

// open reports whether the master has the file open.
func (f files) open(pid int, id kernel.FileID) (bool, error) {
	held, err := kernel.HasOpen(pid, id)
	return held, kernel.Explain(kernel.ListOpen, fmt.Sprintf("what uWSGI %d has open", pid), err)
}

func cannot(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
