package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
)

// program looks at what a reload would execute. Debian's uWSGI executes the name
// by which it was started, along its PATH, others the path of their executable,
// or what binary-path says (core/master_utils.c, uwsgi_reload). The first of them
// that is another file counts.
func (l *look) program() {
	runs, err := kernel.Running(l.p.PID)
	if err != nil {
		unknown(&l.d.Program, err)
		return
	}
	names := []string{l.again.Args[0]}
	switch forced, err := l.option("binary-path"); {
	case err != nil:
		unknown(&l.d.Program, err)
		return
	case forced != nil:
		names = append(names, forced.Text)
	}
	for _, name := range names {
		found, at, err := l.lookPath(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			l.d.Program = facts.Known(facts.File{Path: name, Gone: true})
			return
		case err != nil:
			unknown(&l.d.Program, err)
			return
		case found.Same(runs):
			continue
		}
		file := facts.File{Path: at, At: found.Changed}
		// The file of that name was replaced, as by an upgrade.
		if runs.Path != found.Path && runs.Path != at {
			file.Instead = runs.Path
		}
		l.d.Program = facts.Known(file)
		return
	}
}

// lookPath finds what execvp(3) would execute.
func (l *look) lookPath(name string) (found kernel.File, at string, err error) {
	dirs := []string{""}
	if !strings.Contains(name, "/") {
		env, err := l.variable("PATH", "/bin:/usr/bin") // confstr(_CS_PATH)
		if err != nil {
			return found, "", err
		}
		dirs = strings.Split(env, ":")
	}
	for _, dir := range dirs {
		at, err := l.started(path.Join(dir, name))
		if err != nil {
			return found, at, err
		}
		if found, err = l.root.LookProgram(at); err == nil && !found.Dir {
			return found, at, nil
		}
		skipped := []error{fs.ErrNotExist, fs.ErrPermission, unix.ENOTDIR}
		if errors.Is(err, kernel.ErrBlind) || err != nil && !slices.ContainsFunc(skipped, func(e error) bool { return errors.Is(err, e) }) {
			return found, at, err
		}
	}
	return found, "", fs.ErrNotExist
}

// variable is a variable of uWSGI's environment as its options have left it. What
// the application does to it is not seen.
func (l *look) variable(name, none string) (value string, err error) {
	value, ok := l.again.Variable(name)
	for _, o := range l.again.Options {
		key, text, set := strings.Cut(o.Text, "=")
		relevant := true
		switch o.Name {
		case "env":
			if relevant = key == name; relevant { // putenv(3)
				value, ok = text, set
			}
		case "unenv":
			if relevant = o.Text == name; relevant {
				ok = false
			}
		case "envdir", "envdirs", "early-envdir", "early-envdirs":
			b, err := l.root.ReadFile(path.Join(o.Text, name))
			switch relevant = err == nil; {
			case o.Unknown != "", !path.IsAbs(o.Text), !relevant && !errors.Is(err, fs.ErrNotExist):
				return "", fmt.Errorf("whether %s (%s) sets %s is not known", o.Name, o.At, name)
			case relevant:
				value, _, _ = strings.Cut(string(b), "\n")
				ok = true
			}
		default:
			continue
		}
		if relevant && (o.Unknown != "" || o.Conditional) {
			return "", errors.New(o.Name + " (" + o.At + ") sets " + name + ", and to what is not known here")
		}
	}
	if !ok {
		return none, nil
	}
	return value, nil
}
