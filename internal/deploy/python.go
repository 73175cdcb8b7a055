package deploy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"qwatch/internal/kernel"
	"qwatch/internal/text"
	"qwatch/internal/uwsgiconf"
)

// installed are the folders in which Python finds what a distribution has
// installed.
var installed = []string{
	"/usr/lib/python3/dist-packages", "/usr/local/lib/python3*/dist-packages", "/usr/local/lib/python3*/site-packages",
	"/usr/lib/python3*/site-packages", "/usr/lib64/python3*/site-packages", "/usr/lib/python2*/dist-packages", "/usr/lib/python3*",
}

// pythonPath finds the folders in which Python looks for modules, in their order,
// and adds those to the search that somebody has chosen: pythonpath, each before
// the one before it, and PYTHONPATH (plugins/python/python_plugin.c,
// init_uwsgi_vars). It tells how many of the first are such.
func (a *app) pythonPath() (chosen int) {
	if a.paths == nil {
		a.paths = []string{a.base}
		for _, o := range a.again.Options {
			switch o.Name {
			case "pythonpath", "python-path", "pp":
			default:
				continue
			}
			if o.Unknown != "" || strings.ContainsAny(o.Text, "*?[") {
				unknown(&a.d.Source, fmt.Errorf("%s (%s) is not followed: it holds a pattern", o.Name, o.At))
				continue
			}
			a.paths = slices.Insert(a.paths, 0, a.from(o.Text))
		}
		switch env, err := a.variable("PYTHONPATH", ""); {
		case err != nil:
			unknown(&a.d.Source, err)
		case env != "":
			for dir := range strings.SplitSeq(env, ":") {
				a.paths = append(a.paths, a.from(dir))
			}
		}
		for _, dir := range a.paths {
			if dir != a.base {
				a.walk(dir, "python")
			}
		}
		a.home()
	}
	return len(a.paths)
}

// from is a path below the folder in which the application is loaded.
func (a *app) from(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(a.base, name)
}

// homes are the names of the option of a virtualenv.
var homes = []string{"home", "virtualenv", "venv", "pyhome"}

// home looks at the virtualenv: what pip installs or takes away changes the folder
// beside the package that says what it has.
func (a *app) home() {
	o, err := a.option(homes...)
	if err != nil {
		unknown(&a.d.Source, err)
		return
	}
	if o == nil {
		return
	}
	dir := a.from(o.Text)
	seen, err := a.root.Look(dir)
	if err == nil && !seen.Dir {
		err = errors.New("not a directory") // uWSGI ends (init_pyhome)
		a.lost("the virtualenv %s (%s, %s): %v", text.Line(dir), o.Name, o.At, err)
	}
	if err != nil {
		a.missing(dir, *o, err, false)
		return
	}
	newest(&a.d.Source, seen)
	for _, site := range a.sites(dir) {
		found, err := a.root.Newest(site, kernel.Names{
			Leave: func(string) bool { return true },
			Files: func(name string) bool {
				return slices.Contains([]string{".dist-info", ".egg-info", ".pth", ".egg", ".egg-link", ".py"}, path.Ext(name))
			},
		}, &kernel.Bound{Entries: maxEntries, Until: a.bound.Until})
		if newest(&a.d.Source, found); err != nil {
			unknown(&a.d.Source, err)
		}
	}
}

// sites are the folders of a virtualenv in which its packages lie.
func (a *app) sites(home string) []string {
	return append(a.glob(path.Join(home, "lib/python*/site-packages")), a.glob(path.Join(home, "lib64/python*/site-packages"))...)
}

// glob lists what there is of a pattern.
func (a *app) glob(pattern string) []string {
	found, err := a.root.Glob(pattern)
	if err != nil {
		unknown(&a.d.Source, err)
	}
	return found
}

// module adds a module: "shop.wsgi:application".
func (a *app) module(value string, o uwsgiconf.Option, optional bool) {
	name, _, _ := strings.Cut(value, ":")
	parts := strings.Split(name, ".")
	chosen := a.pythonPath()
	paths := slices.Clone(a.paths)
	if home, _ := a.option(homes...); home != nil {
		paths = append(paths, a.sites(a.from(home.Text))...)
	}
	for _, pattern := range installed {
		paths = append(paths, a.glob(pattern)...)
	}
	for n := range 2 * len(paths) { // a folder without __init__.py is found last
		i := n % len(paths)
		dir := paths[i]
		file, ok := a.find(dir, parts, n >= len(paths))
		if !ok {
			continue
		}
		seen, err := a.root.Look(file)
		if err != nil {
			a.missing(file, o, err, optional)
			return
		}
		newest(&a.d.Source, seen)
		if i >= chosen { // it is one of many there
			dir = path.Join(dir, parts[0])
		}
		a.walk(dir, "python")
		a.walk(path.Dir(seen.Path), "python")
		return
	}
	if !optional && a.d.Source.Unseen() == "" {
		a.lost("module %s (%s, %s) is in none of the folders in which Python would look (%s, …)", text.Line(name), o.Name, o.At, text.Line(strings.Join(slices.Compact(a.paths), ", ")))
	}
}

// find finds the file of a module below a folder of Python's path. A folder without
// __init__.py is a package too; loose says that the first may be one.
func (a *app) find(dir string, parts []string, loose bool) (file string, ok bool) {
	for i, part := range parts {
		at := path.Join(dir, part)
		last := i == len(parts)-1
		switch {
		case a.is(path.Join(at, "__init__.py"), false):
			file = path.Join(at, "__init__.py")
		case last && a.is(at+".py", false):
			return at + ".py", true
		case last && len(a.glob(at+".*so")) > 0:
			return a.glob(at + ".*so")[0], true
		case last && a.is(at+".pyc", false):
			return at + ".pyc", true
		case (i > 0 || loose) && a.is(at, true):
			file = at
		case i > 0: // its package is there, and it is not: the path ends here
			return at + ".py", true
		default:
			return "", false
		}
		dir = at
	}
	return file, true
}

func (a *app) is(name string, dir bool) bool {
	seen, err := a.root.Look(name)
	if err != nil && !kernel.NotThere(err) {
		unknown(&a.d.Source, err)
	}
	return err == nil && seen.Dir == dir
}
