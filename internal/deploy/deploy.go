// Package deploy looks at what a reload of a running uWSGI would bring: since when
// it runs, what it would execute, and the files that it would read and import.
// Looking at a host and acting on it both ask here, so that they cannot disagree.
package deploy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/text"
	"qwatch/internal/uwsgi"
	"qwatch/internal/uwsgiconf"
	"qwatch/remediate/facts"
)

const (
	// maxEntries is how many files and folders one search goes through, and
	// maxSearch how long it may take: a site-packages has some 30,000.
	maxEntries = 200_000
	maxSearch  = 3 * time.Second
)

// Unseen is a Deploy of which nothing is known, and why.
func Unseen(why error) facts.Deploy {
	file := facts.Unknown[facts.File](why.Error())
	when := facts.Unknown[time.Time](why.Error())
	setup := facts.Unknown[facts.Setup](why.Error())
	return facts.Deploy{
		Since: when, Loaded: when, Lost: facts.Unknown[string](why.Error()),
		Program: file, Config: file, Source: file, Asks: setup, Ran: setup,
	}
}

// Look looks at what a reload of a running master would bring. names are those of
// uWSGI's executable. It reads what that process may read, and blocks while a file
// system, or the process' memory, does not answer.
func Look(master uwsgi.Process, names []string, m *Memory) facts.Deploy {
	st, err := kernel.ReadStat(master.PID)
	if err == nil && st.Start != master.Start {
		err = fmt.Errorf("process %d is no longer the uWSGI that it was", master.PID)
	}
	if err != nil {
		return Unseen(err)
	}
	again, root, err := uwsgi.ReadAgain(master, names)
	if err != nil {
		return Unseen(err)
	}
	defer root.Close()
	l := look{p: master, names: names, again: again, root: root}
	l.d = facts.Deploy{Image: st.Image, Lost: facts.Absent[string](), Program: facts.Absent[facts.File](), Source: facts.Absent[facts.File]()}
	l.since(m)
	l.config()
	l.program()
	if again.Unread != nil {
		l.d.Source = facts.Unknown[facts.File](again.Unread.Error())
	} else {
		l.application()
	}
	l.remember(m)
	return l.d
}

// look is one Look.
type look struct {
	p     uwsgi.Process
	names []string
	again uwsgi.Again
	root  kernel.Root
	d     facts.Deploy
}

// lost notes the first thing that a reload would not find.
func (l *look) lost(format string, args ...any) {
	if l.d.Lost.State != facts.StateKnown {
		l.d.Lost = facts.Known(fmt.Sprintf(format, args...))
	}
}

// newest keeps the newer of what is known and a file.
func newest(f *facts.Fact[facts.File], seen kernel.File) {
	if seen.By != "" && f.Unseen() == "" && (f.IsAbsent() || seen.Changed.After(f.Value.At)) {
		*f = facts.Known(facts.File{Path: seen.By, At: seen.Changed, Gone: seen.Gone})
	}
}

func unknown(f *facts.Fact[facts.File], why error) {
	if f.Unseen() == "" {
		*f = facts.Unknown[facts.File](why.Error())
	}
}

// config looks at the files of the configuration, and what it says.
func (l *look) config() {
	l.d.Config = facts.Absent[facts.File]()
	for _, file := range l.again.Files {
		seen, err := l.root.Look(file)
		if err != nil { // it was read a moment ago
			unknown(&l.d.Config, err)
			continue
		}
		newest(&l.d.Config, seen)
	}
	if err := l.again.Unread; err != nil {
		unknown(&l.d.Config, err)
		l.d.Asks = facts.Unknown[facts.Setup](err.Error())
		return
	}
	l.d.Asks = setup(l.again.Options)
}

// setup is what a configuration serves.
func setup(options []uwsgiconf.Option) facts.Fact[facts.Setup] {
	s := facts.Setup{Processes: 1}
	other := ""
	for _, o := range options {
		serves := uwsgiconf.Serves(o.Name)
		switch {
		case serves && o.Unknown == "" && !o.Conditional:
			address, _, _ := strings.Cut(o.Text, ",")
			s.Listens = append(s.Listens, facts.Listen{Address: strings.TrimSpace(address), Protocol: o.Name})
		case !serves && !slices.Contains([]string{"processes", "workers", "cheaper", "protocol", "socket-protocol"}, o.Name):
		case o.Unknown != "" || o.Conditional:
			return facts.Unknown[facts.Setup](o.Name + " (" + o.At + ") depends on what is not known here")
		case o.Name == "cheaper":
			s.Cheaper, _ = strconv.Atoi(strings.TrimSpace(o.Text))
		case o.Name == "protocol" || o.Name == "socket-protocol":
			other = o.Text
		default:
			n, err := strconv.Atoi(strings.TrimSpace(o.Text))
			if err != nil {
				return facts.Unknown[facts.Setup](o.Name + " (" + o.At + ") is no number")
			}
			s.Processes = n
		}
	}
	for i := range s.Listens { // it is that of plain sockets
		if l := &s.Listens[i]; other != "" && l.Protocol == "socket" {
			l.Protocol += " with protocol " + text.Line(other)
		}
	}
	return facts.Known(s)
}

// remember keeps what the configuration says where it is the one that the master
// has read, and tells what it said where it is another by now.
func (l *look) remember(m *Memory) {
	file, some := l.d.Config.Get()
	since, dated := l.d.Since.Get()
	asks, known := l.d.Asks.Get()
	if known && (l.d.Config.IsAbsent() || some && dated && !file.At.After(since)) {
		m.keep(l.p, l.d.Image, asks)
	}
	l.d.Ran = m.ran(l.p, l.d.Image)
}

// option is the last of an option's settings, nil where there is none. The names
// are those of one option.
func (l *look) option(names ...string) (*uwsgiconf.Option, error) {
	var found *uwsgiconf.Option
	for i := range l.again.Options {
		o := &l.again.Options[i]
		switch {
		case !slices.Contains(names, o.Name):
		case o.Unknown != "":
			return nil, fmt.Errorf("%s (%s): %s", o.Name, o.At, o.Unknown)
		case o.Conditional:
			return nil, fmt.Errorf("%s (%s) stands in a condition or a loop, which is not evaluated", o.Name, o.At)
		default:
			found = o
		}
	}
	return found, nil
}

// on reports whether a flag is set, also where that is not sure.
func (l *look) on(names ...string) bool {
	return slices.ContainsFunc(l.again.Options, func(o uwsgiconf.Option) bool {
		return slices.Contains(names, o.Name) && !o.Off()
	})
}

var errManyStarts = errors.New("it may have been started in one of several folders")

// started resolves a path that is relative to the folder in which uWSGI was
// started, to which it goes back before a reload (core/master_utils.c,
// uwsgi_reload).
func (l *look) started(name string) (string, error) {
	if path.IsAbs(name) {
		return path.Clean(name), nil
	}
	var found []string
	var first kernel.File
	for _, dir := range l.again.Dirs {
		full := path.Join(dir, name)
		seen, err := l.root.Look(full)
		switch {
		case err != nil:
		case len(found) == 0:
			found, first = append(found, full), seen
		case !seen.Same(first):
			return "", fmt.Errorf("%s: %w", text.Line(name), errManyStarts)
		}
	}
	if len(found) == 0 {
		return path.Join(slices.Concat(l.again.Dirs, []string{"/"})[0], name), nil
	}
	return found[0], nil
}
