package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/text"
	"qwatch/internal/uwsgiconf"
)

// kind is how an option names what is to be loaded.
type kind byte

const (
	aFile     kind = iota + 1 // a file
	aFolder                   // a folder with the application in it
	aModule                   // a Python module, with its callable behind a colon
	aMount                    // MOUNTPOINT=FILE or MOUNTPOINT=MODULE:CALLABLE
	aConfig                   // a file of paste.deploy or pecan, which names modules
	anyPython                 // a file or a module, whichever it looks like
	anAlias                   // NAME=FILE or NAME=MODULE
	aText                     // the program itself
	foreign                   // what is not known here
)

// entries are the options that make uWSGI load an application, or a part of it
// (plugins/python/python_plugin.c, and the option tables of its siblings). Those of
// PHP and CGI load their scripts at each request, and a reload brings none.
var entries = map[string]struct {
	kind
	language string
	optional bool // uWSGI serves without it
}{
	"wsgi-file": {aFile, "python", false}, "file": {aFile, "python", false}, "python-raw": {aFile, "python", false},
	"python-worker-override": {aFile, "python", false}, "module": {aModule, "python", false}, "wsgi": {aModule, "python", false},
	"web3": {aModule, "python", false}, "pump": {aModule, "python", false},
	"wsgi-lite": {aModule, "python", false}, "mount": {aMount, "", false}, "paste": {aConfig, "python", false},
	"ini-paste": {aConfig, "python", false}, "ini-paste-logged": {aConfig, "python", false}, "pecan": {aConfig, "python", false},
	"eval": {aText, "python", false}, "pymodule-alias": {anAlias, "python", false}, "post-pymodule-alias": {anAlias, "python", false},
	"import": {anyPython, "python", true}, "pyimport": {anyPython, "python", true}, "py-import": {anyPython, "python", true},
	"python-import": {anyPython, "python", true}, "shared-import": {anyPython, "python", true}, "shared-pyimport": {anyPython, "python", true},
	"shared-py-import": {anyPython, "python", true}, "shared-python-import": {anyPython, "python", true},
	"spooler-import": {anyPython, "python", true}, "spooler-pyimport": {anyPython, "python", true},
	"spooler-py-import": {anyPython, "python", true}, "spooler-python-import": {anyPython, "python", true},
	"mule": {anyPython, "python", true},

	"psgi": {aFile, "perl", false}, "perl-exec": {aFile, "perl", true}, "perl-exec-post-fork": {aFile, "perl", true},
	"rack": {aFile, "ruby", false}, "rails": {aFolder, "ruby", false}, "rb-require": {aFile, "ruby", true},
	"ruby-require": {aFile, "ruby", true}, "rbrequire": {aFile, "ruby", true}, "rubyrequire": {aFile, "ruby", true},
	"lua": {aFile, "lua", false}, "lua-load": {aFile, "lua", true},

	"jvm-main-class": {kind: foreign}, "jvm-class": {kind: foreign}, "jvm-classpath": {kind: foreign}, "jwsgi": {kind: foreign},
	"servlet-directory": {kind: foreign}, "clojure-load": {kind: foreign}, "ring-app": {kind: foreign}, "ring-load": {kind: foreign},
	"mono-app": {kind: foreign}, "mono-exec": {kind: foreign}, "go-load": {kind: foreign}, "gccgo-load": {kind: foreign},
	"symcall": {kind: foreign}, "dlopen": {kind: foreign}, "pypy-wsgi": {kind: foreign}, "pypy-wsgi-file": {kind: foreign},
	"pypy-paste": {kind: foreign}, "pypy-ini-paste": {kind: foreign}, "pypy-eval": {kind: foreign}, "pypy-exec": {kind: foreign},
	"cobra": {kind: foreign}, "js": {kind: foreign}, "v8-load": {kind: foreign}, "erlang": {kind: foreign}, "mongrel2": {kind: foreign},
}

// sources are the endings of what an application's language loads.
var sources = map[string][]string{
	"python": {".py", ".wsgi", ".pyc", ".so"},
	"perl":   {".pl", ".pm", ".psgi", ".so"},
	"ruby":   {".rb", ".ru", ".so"},
	"lua":    {".lua", ".so"},
}

// languageOf tells by the ending of a mounted file which plugin takes it
// (uwsgi_python_mount_app and its siblings).
func languageOf(file string) string {
	switch ext := path.Ext(file); {
	case ext == ".psgi" || ext == ".pl":
		return "perl"
	case ext == ".ru" || ext == ".rb":
		return "ruby"
	}
	return "python"
}

// serving are options of what serves without an application that is loaded.
var serving = []string{"php-", "cgi", "static-", "check-static", "route", "fastrouter", "http-to"}

// application finds the newest file that the application can load.
func (l *look) application() {
	a := app{look: l, bound: kernel.Bound{Entries: maxEntries, Until: time.Now().Add(maxSearch)}}
	base, err := l.base()
	if err != nil {
		unknown(&l.d.Source, err)
		return
	}
	a.base = base
	found, served := false, false
	for _, o := range l.again.Options {
		e, ok := entries[o.Name]
		served = served || slices.ContainsFunc(serving, func(prefix string) bool { return strings.HasPrefix(o.Name, prefix) })
		if !ok || o.Name == "mule" && (o.Text == "" || o.Text == "true") {
			continue
		}
		found = true
		switch {
		case e.kind == foreign:
			unknown(&l.d.Source, fmt.Errorf("an application by %s (%s) is of a kind whose files are not known here", o.Name, o.At))
		case o.Unknown != "":
			unknown(&l.d.Source, fmt.Errorf("%s (%s): %s", o.Name, o.At, o.Unknown))
		default:
			a.entry(o, e.kind, e.language, e.optional || o.Conditional)
		}
	}
	if !found && !served && l.speaks() {
		unknown(&l.d.Source, errors.New("its configuration names no application (wsgi-file, module, mount, …)"))
	}
	a.search()
}

// languages are parts of the names of plugins that load applications, also ones
// that no option names: a request may (vhost, UWSGI_SCRIPT).
var languages = []string{"python", "pypy", "psgi", "perl", "rack", "ruby", "lua", "jvm", "jwsgi", "mono", "go", "v8"}

// speaks reports whether it may load applications that no option names.
func (l *look) speaks() bool {
	loads := func(plugin string) bool {
		return slices.ContainsFunc(languages, func(l string) bool { return strings.Contains(plugin, l) })
	}
	return loads(path.Base(l.again.Args[0])) || l.on("vhost", "vhost-host", "autoload") || slices.ContainsFunc(l.again.Options, func(o uwsgiconf.Option) bool {
		return slices.Contains([]string{"plugin", "plugins", "need-plugin", "need-plugins"}, o.Name) && loads(o.Text)
	})
}

// app is the search for the files of the applications.
type app struct {
	*look
	bound kernel.Bound
	base  string // the folder in which they are loaded
	dirs  []search
	paths []string // of Python, where they are known
}

// search is a folder in which the files of a language count.
type search struct{ dir, language string }

func (a *app) walk(dir, language string) {
	if s := (search{dir, language}); !slices.Contains(a.dirs, s) {
		a.dirs = append(a.dirs, s)
	}
}

// base is the folder in which applications are loaded: that of chdir, else the one
// in which the master is.
func (l *look) base() (string, error) {
	in, deleted, err := kernel.WorkDir(l.p.PID)
	if err != nil {
		return "", err
	}
	o, err := l.option("chdir")
	if err != nil {
		return "", err
	}
	dir, at := in.Path, ""
	if o != nil {
		if dir, err = l.started(o.Text); err != nil {
			return "", err
		}
		at = " (chdir, " + o.At + ")"
	}
	seen, err := l.root.Look(dir)
	switch {
	case o == nil && deleted, errors.Is(err, fs.ErrNotExist):
		l.lost("the folder %s%s is gone", text.Line(dir), at)
		return dir, nil
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, kernel.ErrBlind):
		l.lost("the folder %s%s: %v", text.Line(dir), at, reason(err))
		return dir, nil
	case err != nil:
		return "", err
	}
	newest(&l.d.Source, seen) // a link, as current -> releases/7
	if since, ok := l.d.Loaded.Get(); ok && !seen.Same(in) && o != nil {
		l.replaced(dir, since)
	}
	return dir, nil
}

// replaced notes that another folder stands where the one was in which the master
// is, if that happened since it is loaded: an application may go elsewhere too.
func (l *look) replaced(dir string, since time.Time) {
	above, err := l.root.Newest(path.Dir(dir), kernel.Names{
		Files: func(name string) bool { return name == path.Base(dir) },
		Leave: func(string) bool { return true },
	}, &kernel.Bound{Entries: maxEntries, Until: time.Now().Add(maxSearch)})
	if err == nil && above.Changed.After(since) {
		newest(&l.d.Source, above)
	}
}

// entry adds what one option names.
func (a *app) entry(o uwsgiconf.Option, k kind, language string, optional bool) {
	value := strings.TrimSpace(o.Text)
	if k == aMount || k == anAlias {
		_, value, _ = strings.Cut(value, "=")
	}
	if k == aMount {
		language = languageOf(value)
	}
	if strings.Contains(value, "://") {
		unknown(&a.d.Source, fmt.Errorf("%s (%s) is no file", o.Name, o.At))
		return
	}
	ends := func(suffixes ...string) bool {
		return slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(value, s) })
	}
	switch {
	case k == aText:
		a.walk(a.base, language)
	case k == aModule,
		k == aMount && language == "python" && strings.Contains(value, ":") && !ends(".py", ".wsgi", ".ini"),
		k == anyPython && !strings.Contains(value, "/") && !ends(".py"),
		k == anAlias && !strings.Contains(value, "/"):
		a.module(value, o, optional)
	case k == aConfig:
		file, _, _ := strings.Cut(strings.TrimPrefix(value, "config:"), "#")
		a.file(file, o, language, optional)
		a.walk(a.base, language)
	default:
		a.file(value, o, language, optional)
	}
}

// file adds a file, or a folder that is loaded as one.
func (a *app) file(name string, o uwsgiconf.Option, language string, optional bool) {
	full := path.Join("/", name)
	if !path.IsAbs(name) {
		full = path.Join(a.base, name)
		a.walk(a.base, language)
	}
	seen, err := a.root.Look(full)
	if err != nil {
		a.missing(full, o, err, optional)
		return
	}
	newest(&a.d.Source, seen)
	if seen.Dir {
		a.walk(full, language)
		return
	}
	a.walk(path.Dir(full), language)
	if dir := path.Dir(seen.Path); dir != path.Dir(full) {
		a.walk(dir, language)
	}
	if chdir, _ := a.option("chdir"); chdir != nil {
		a.walk(a.base, language)
	}
	if language == "python" {
		a.pythonPath()
	}
}

// missing notes what an option names and is not there.
func (a *app) missing(full string, o uwsgiconf.Option, err error, optional bool) {
	gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && !errors.Is(err, kernel.ErrBlind)
	switch {
	case gone && optional:
	case gone:
		a.lost("%s (%s, %s): %v", text.Line(full), o.Name, o.At, reason(err))
	default:
		unknown(&a.d.Source, err)
	}
}

// reason is an error without the path in it.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// systems are the folders below the root that hold a system: an application in
// the root itself is not looked for in them.
var systems = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var"}

// search looks for the newest file in all folders.
func (a *app) search() {
	for _, s := range a.dirs {
		names := kernel.Names{
			Within: true,
			Files: func(name string) bool {
				return slices.ContainsFunc(sources[s.language], func(suffix string) bool { return strings.HasSuffix(name, suffix) })
			},
			Leave: func(full string) bool {
				name := path.Base(full)
				return strings.HasPrefix(name, ".") || name == "__pycache__" || name == "node_modules" || slices.Contains(systems, full)
			},
		}
		if s.language == "python" {
			names.Made, names.Source = "__pycache__", sourceOf
		}
		seen, err := a.root.Newest(s.dir, names, &a.bound)
		if newest(&a.d.Source, seen); err != nil && !a.younger() {
			unknown(&a.d.Source, err)
		}
	}
}

// sourceOf is the file from which a compiled one was made (PEP 3147), "" where it
// is none.
func sourceOf(compiled string) string {
	name, tag, _ := strings.Cut(compiled, ".cpython-")
	if name == "" || !strings.HasSuffix(tag, ".pyc") || strings.Contains(name, "-pytest") {
		return ""
	}
	return name + ".py"
}

// younger reports whether a file is known to be younger than what is loaded: then
// whatever else there is does not matter.
func (a *app) younger() bool {
	file, some := a.d.Source.Get()
	since, dated := a.d.Loaded.Get()
	return some && dated && file.Younger(since)
}
