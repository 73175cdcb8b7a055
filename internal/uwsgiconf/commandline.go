package uwsgiconf

import (
	_ "embed"
	"errors"
	"strings"
)

// flags.txt holds the options that take no argument, and options.txt those that
// take one, from the option tables of uWSGI 1.4.10 to the newest of 2.0:
// grep -oE '"[^"]+", *(no|optional|required)_argument' core/*.c plugins/*/*
//
//go:embed flags.txt
var flags string

//go:embed options.txt
var options string

// short are the one-letter options that take an argument; the others take none.
var short = map[byte]string{
	'A': "sharedarea", 'H': "home", 'J': "test", 'O': "optimize", 'Q': "spooler", 'R': "max-requests",
	'S': "set", 'b': "buffer-size", 'd': "daemonize", 'j': "json", 'l': "listen", 'p': "processes",
	's': "socket", 't': "harakiri", 'v': "max-vars", 'w': "module", 'x': "xml", 'y': "yaml",
	'z': "socket-timeout",
}

// takes are the names of options, and whether each takes an argument. Those in
// both lists do so in some versions only.
type takes struct{ yes, no map[string]bool }

func knownOptions() takes {
	t := takes{map[string]bool{}, map[string]bool{}}
	for name := range strings.FieldsSeq(options) {
		t.yes[name] = true
	}
	for name := range strings.FieldsSeq(flags) {
		t.no[name] = true
	}
	return t
}

// resolve finds the option that a name on the command line means. getopt_long(3)
// takes the beginning of a name for the name where no other begins so.
func (f *finder) resolve(t takes, written string) (name string, argument, known bool) {
	if template, ok := f.custom[written]; ok {
		return written, hasArguments(template), true
	}
	if t.yes[written] || t.no[written] {
		return written, t.yes[written], t.yes[written] != t.no[written]
	}
	found := map[string]bool{}
	collect := func(all map[string]bool) {
		for name := range all {
			if strings.HasPrefix(name, written) {
				found[name] = true
			}
		}
	}
	collect(t.yes)
	collect(t.no)
	for custom := range f.custom {
		if strings.HasPrefix(custom, written) {
			found[custom] = true
		}
	}
	if len(found) != 1 {
		return written, true, false
	}
	for name = range found {
	}
	return f.resolve(t, name)
}

// commandLine reads as getopt_long(3) does: positional arguments come last.
func (f *finder) commandLine() {
	if len(f.in.Args) == 0 {
		f.doubt = errors.New("the command line of the process is empty")
		return
	}
	const at = onCommandLine
	known := knownOptions()
	args := f.in.Args[1:]
	next := func() string {
		if len(args) == 0 {
			return ""
		}
		arg := args[0]
		args = args[1:]
		return arg
	}
	var files []string
	for len(args) > 0 {
		arg := next()
		switch {
		case arg == "--":
			files = append(files, args...)
			args = nil
		case strings.HasPrefix(arg, "--"):
			written, text, given := strings.Cut(arg[2:], "=")
			name, argument, sure := f.resolve(known, written)
			if !given && !sure {
				f.unsure(at, "--%s is no option that is known here: whether what follows is its value cannot be told", written)
			}
			if !given && argument {
				text = next()
			}
			f.add(Option{Name: name, Text: text, At: at})
		case strings.HasPrefix(arg, "-") && len(arg) > 1:
			f.shortOptions(arg, next)
		default:
			files = append(files, arg)
		}
	}
	for _, file := range files {
		if !strings.HasPrefix(file, "[") {
			f.loadAny("", file, at, false)
		}
	}
}

// shortOptions reads an argument of one-letter options, of which the last may
// have a value.
func (f *finder) shortOptions(arg string, next func() string) {
	for i := 1; i < len(arg); i++ {
		if arg[i] == 'C' { // chmod-socket, whose value may only be what follows at once
			return
		}
		name, takes := short[arg[i]]
		if !takes {
			continue // none of the flags matters here
		}
		text := arg[i+1:]
		if text == "" {
			text = next()
		}
		f.add(Option{Name: name, Text: text, At: onCommandLine})
		return
	}
}
