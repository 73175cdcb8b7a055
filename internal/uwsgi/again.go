package uwsgi

import (
	"os"
	"slices"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgiconf"
)

// Again is with what a running uWSGI would start again.
type Again struct {
	uwsgiconf.Input
	Options []uwsgiconf.Option
	// Files are the files that it would read for them.
	Files []string
	// Unread says why Options or Files may lack some, nil where they do not.
	Unread error
}

// ReadAgain reads with what a running uWSGI would start again, as Running does.
// The caller closes root, which is the process' own.
func ReadAgain(p Process, names []string) (a Again, root kernel.Root, err error) {
	var noEnviron error
	if a.Input, noEnviron, err = inputOf(p, names); err != nil {
		return a, root, err
	}
	if root, err = rootOf(p); err != nil {
		return a, root, err
	}
	a.Read = func(path string) ([]byte, error) {
		text, err := root.ReadFile(path)
		if err == nil && !slices.Contains(a.Files, path) {
			a.Files = append(a.Files, path)
		}
		return text, err
	}
	a.Hostname, _ = os.Hostname()         // uname(2) does not fail
	setting, _ := uwsgiconf.Find(a.Input) // the error is about listen alone, and stands in Unread
	a.Options, a.Unread = setting.Options, setting.Unread
	if a.Unread == nil {
		a.Unread = noEnviron
	}
	return a, root, nil
}

// Variable finds a variable in the environment that it was started with.
func (a Again) Variable(name string) (value string, ok bool) { return variable(a.Environ, name) }
