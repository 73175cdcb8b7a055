// Package uwsgiconf finds the listen backlog that a running uWSGI was configured
// with, and where that is written, from its command line, environment and
// configuration files.
//
// It follows uWSGI 2.0.21 (core/init.c uwsgi_commandline_config, core/config.c
// add_exported_option, core/ini.c and its siblings), and its tests compare it
// with a real one. Three things decide:
//   - Options are applied in the order in which they are met, and the last wins:
//     the environment, then the command line's options with each file read where
//     it is named, then the command line's positional files, then inherit.
//   - listen is applied as it is met (UWSGI_OPT_IMMEDIATE, since 2.0.18), so
//     placeholders in it are never filled in: $(N) means 0.
//   - A percent sign with one character is replaced while a file is read, $(ENV),
//     @(file) and %(option) only after everything is read.
//
// Conditions and loops are not evaluated.
package uwsgiconf

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// defaultListen is uWSGI's backlog where nothing sets one (core/init.c).
const defaultListen = 100

// What one configuration may make us read.
const (
	maxFiles    = 200
	maxDepth    = 16
	maxFileSize = 256 << 10
	maxOptions  = 10000
	maxFillIns  = 10000
	// maxText is how many bytes all files may have, and maxProduced what all
	// placeholders may put in: they multiply.
	maxText     = 4 << 20
	maxProduced = 4 << 20
)

// Input is a uWSGI process as /proc shows it.
type Input struct {
	Args     []string // cmdline, the program first
	Environ  []string // environ, "K=V"; empty where it may not be read
	Dirs     []string // where it may have been started, likeliest first
	Hostname string   // for %h

	// Read reads a file as that process would: through /proc/PID/root, and with
	// its rights.
	Read func(path string) ([]byte, error)
}

// Option is one option in force at the place where it was met.
type Option struct {
	Name string // as written: workers and processes are two names
	Text string // with its placeholders filled in; "" for a flag without a value
	At   string // "/etc/uwsgi/app.ini:12", "command line" or "environment UWSGI_LISTEN"

	// Conditional says that it stands in a condition or a loop, and may not hold.
	Conditional bool
	// Unknown says why Text is not what uWSGI makes of it, "" where it is.
	Unknown string
}

// Off reports whether a flag is switched off by its value (core/uwsgi.c,
// uwsgi_opt_true). One of which the value is not known may be on.
func (o Option) Off() bool {
	return o.Unknown == "" && slices.Contains([]string{"false", "off", "no", "0"}, strings.ToLower(o.Text))
}

// Setting is what a configuration asks for.
type Setting struct {
	Listen  int    // the backlog; 0 or more
	At      string // as in Option, or "default"
	Options []Option

	// Unread says what could not be read, followed or understood, nil where
	// nothing is missing: Options may lack some, and one of them may matter,
	// though Listen is known.
	Unread error
}

// Find follows the configuration. The error says why Listen cannot be known: a
// file that cannot be read, a condition, a source that is not a file, a command
// line that the process has overwritten (auto-procname). Then the Setting holds
// what was found nevertheless.
func Find(in Input) (Setting, error) {
	f := finder{
		in: in, listen: defaultListen, at: "default",
		first: map[string]int{}, custom: map[string]string{}, magic: map[byte]string{},
	}
	f.environment()
	f.commandLine()
	f.expandLate()
	for i := range f.options {
		f.fillIn(&f.options[i])
	}
	// inherit adds to what is being walked, after everything else (uwsgi_configure).
	for i := 0; i < len(f.options); i++ {
		o := f.options[i]
		switch {
		case o.Name != "inherit" || o.placeholder:
		case o.Unknown != "":
			f.unsure(o.At, "inherit is not followed: %s", o.Unknown)
		default:
			f.loadAny(o.Name, o.Text, o.At, o.Conditional)
		}
	}
	if f.at == "default" && f.doubt == nil && !slices.ContainsFunc(in.Environ, isVariable) {
		f.doubt = errors.New("the environment of the process cannot be read, or the process has overwritten it and its command line (auto-procname)")
	}
	s := Setting{Listen: f.listen, At: f.at, Unread: f.unread}
	if s.Unread == nil {
		s.Unread = f.doubt
	}
	for _, o := range f.options {
		if !o.placeholder {
			s.Options = append(s.Options, o.Option)
		}
	}
	return s, f.doubt
}

func isVariable(s string) bool { return strings.Contains(s, "=") }

type option struct {
	Option
	placeholder bool // known to %(name) only
	applied     bool // as it was met: its placeholders stay as they are
	expanded    bool // a custom option, and what it stands for is there
}

type finder struct {
	in       Input
	options  []option
	first    map[string]int // name to index in options
	fillIns  int
	produced int // bytes by placeholders
	text     int // bytes of files

	listen int
	at     string
	doubt  error // why listen may be another; nil where it is sure
	unread error // the first reason why options may be missing

	logic     bool              // between if-… or for-… and its end
	custom    map[string]string // declared options, and what each stands for
	literal   bool              // what is added keeps its placeholders
	magic     map[byte]string
	firstFile bool // the upper-case magic is set
	lastINI   string
	files     int
	depth     int
}

const onCommandLine = "command line"

// ignored are the variables that uWSGI sets for its own use (core/utils.c
// parse_sys_envs).
var ignored = map[string]bool{
	"UWSGI_RELOADS": true, "UWSGI_VASSALS_DIR": true, "UWSGI_EMPEROR_FD": true,
	"UWSGI_BROODLORD_NUM": true, "UWSGI_EMPEROR_FD_CONFIG": true, "UWSGI_EMPEROR_PROXY": true,
	"UWSGI_JAIL_PID": true, "UWSGI_ORIGINAL_PROC_NAME": true,
}

func (f *finder) environment() {
	for _, kv := range f.in.Environ {
		k, v, _ := strings.Cut(kv, "=")
		if name, ok := strings.CutPrefix(k, "UWSGI_"); ok && !ignored[k] {
			name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
			f.add(Option{Name: name, Text: v, At: "environment " + k})
		}
	}
}

// add is core/config.c add_exported_option.
func (f *finder) add(o Option) {
	switch o.Name {
	case "end", "endfor", "endif", "end-if", "end-for":
		f.logic = false
	}
	o.Conditional = o.Conditional || f.logic
	template, custom := f.custom[o.Name]
	if !f.record(option{Option: o, applied: f.literal || immediate(o.Name), expanded: custom}) {
		return
	}
	if custom {
		f.expand(o, template)
		return
	}
	key, text, _ := strings.Cut(o.Text, "=")
	set := Option{Name: key, Text: text, At: o.At, Conditional: o.Conditional}
	switch o.Name {
	case "listen":
		f.setListen(o)
	case "set":
		f.add(set)
	case "set-placeholder", "set-ph":
		f.record(option{Option: set, placeholder: true, applied: true})
	case "ini", "yaml", "yml", "json", "js", "xml", "xmlconfig", "ini-paste", "ini-paste-logged", "pypy-ini-paste":
		f.load(formats[o.Name], o.Name, o.Text, o.At, o.Conditional)
	case "include":
		f.loadAny(o.Name, o.Text, o.At, o.Conditional)
	case "config", "inject-before", "inject-after", "sqlite3", "sqlite", "ldap":
		f.unsure(o.At, "%s is not followed", o.Name)
	case "declare-option", "declare-option2":
		if _, known := f.custom[key]; !known { // the first that is called so is found
			f.custom[key] = text
		}
	default:
		f.logic = f.logic || isLogic(o.Name)
	}
}

// record keeps an option, up to what one configuration may hold.
func (f *finder) record(o option) bool {
	if len(f.options) >= maxOptions {
		f.unsure(o.At, "more than %d options", maxOptions)
		return false
	}
	if _, ok := f.first[o.Name]; !ok {
		f.first[o.Name] = len(f.options)
	}
	f.options = append(f.options, o)
	return true
}

// immediate tells the options that take effect as they are met, before their
// placeholders are filled in, as far as they matter here (core/uwsgi.c,
// UWSGI_OPT_IMMEDIATE).
func immediate(name string) bool {
	switch name {
	case "listen", "set", "set-placeholder", "set-ph", "include", "config", "inject-before", "inject-after",
		"sqlite3", "sqlite", "ldap", "declare-option", "declare-option2":
		return true
	}
	return formats[name] != none || isLogic(name)
}

func isLogic(name string) bool {
	switch name {
	case "for", "ifenv", "ifexists", "ifplugin", "ifdir":
		return true
	}
	return strings.HasPrefix(name, "if-") || strings.HasPrefix(name, "for-")
}

func (f *finder) unsure(at, format string, args ...any) {
	f.doubt = fmt.Errorf("%s: "+format, append([]any{at}, args...)...)
	if f.unread == nil {
		f.unread = f.doubt
	}
}

func (f *finder) setListen(o Option) {
	if o.Conditional {
		f.unsure(o.At, "listen stands in a condition or a loop, which is not evaluated")
		return
	}
	if strings.Contains(o.Text, unknownMagic) {
		f.unsure(o.At, "listen holds a placeholder that is not known here")
		return
	}
	n, ok := atoi(o.Text)
	if !ok {
		f.unsure(o.At, "listen is no number that uWSGI takes")
		return
	}
	f.listen, f.at, f.doubt = n, o.At, nil
}

// atoi is C's, as uwsgi_opt_set_int uses it: leading blanks, a sign, digits, and
// whatever follows is ignored. Negative numbers end uWSGI; too big ones are
// undefined.
func atoi(s string) (int, bool) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	s, negative := strings.CutPrefix(s, "-")
	if !negative {
		s = strings.TrimPrefix(s, "+")
	}
	end := 0
	for end < len(s) && '0' <= s[end] && s[end] <= '9' {
		end++
	}
	if end == 0 {
		return 0, true
	}
	n, err := strconv.ParseInt(s[:end], 10, 32)
	return int(n), err == nil && (!negative || n == 0)
}

// formats are the options that load a file, and how it is written.
var formats = map[string]format{
	"ini": ini, "yaml": yamlFormat, "yml": yamlFormat, "json": jsonFormat, "js": jsonFormat,
	"xml": xmlFormat, "xmlconfig": xmlFormat,
	"ini-paste": ini, "ini-paste-logged": ini, "pypy-ini-paste": ini, // its [uwsgi], for paste.deploy takes the rest
}

// loadAny is core/uwsgi.c uwsgi_opt_load: the name's end says how the file is
// written, so "app.ini:section" is none.
func (f *finder) loadAny(option, file, at string, conditional bool) {
	how, ok := formats[strings.TrimPrefix(filepath.Ext(file), ".")]
	if !ok || strings.HasSuffix(file, ".xmlconfig") {
		f.unsure(at, "%s is not followed: it does not end as a configuration file does", called(option, file, at))
		return
	}
	first := f.firstFile
	f.firstFile = true
	f.load(how, option, file, at, conditional)
	f.firstFile = first
}

// load reads a file, "file:section" or, in ini, ":section" of the last one.
func (f *finder) load(how format, option, file, at string, conditional bool) {
	name := called(option, file, at)
	if strings.Contains(file, "://") || file == "-" {
		f.unsure(at, "%s is no file, and not followed", name)
		return
	}
	f.files++
	if f.depth++; f.depth > maxDepth || f.files > maxFiles {
		f.unsure(at, "too many files include each other at %s", name)
		return
	}
	defer func() { f.depth-- }()
	section := ""
	if i := strings.LastIndexByte(file, ':'); i >= 0 {
		file, section = file[:i], file[i+1:]
	}
	again := file == "" && how == ini
	if again {
		file = f.lastINI
	}
	path, text, err := f.read(file)
	if err != nil {
		f.unsure(at, "reading %s: %w", name, reason(err))
		return
	}
	if again {
		f.magic['x'] = section
	} else {
		f.fillMagic(path, file, section)
	}
	lines, err := parseInTurn(how, f.substitute(text), section)
	if bytes.IndexByte(text, 0) >= 0 { // where a line ends for C
		err = errors.New("a NUL")
	}
	if err != nil {
		f.unsure(at, "%s cannot be understood as %s: its text is not well formed, nested too deep, or written in a way that is not followed", name, how)
		return
	}
	if how == ini {
		f.lastINI = path
	}
	for _, l := range lines {
		f.add(Option{
			Name: l.key, Text: l.text, At: fmt.Sprintf("%s:%d", path, l.number),
			Conditional: conditional || l.conditional,
		})
	}
}

// turns is how many files are parsed at a time: YAML takes 300 times its size
// while it is read, and any user may have many processes with such a file.
var turns = make(chan struct{}, 2)

func parseInTurn(how format, text []byte, section string) ([]line, error) {
	turns <- struct{}{}
	defer func() { <-turns }()
	return parse(how, text, section)
}

// called is how a file is called in a message. Everybody may see a command
// line; what else names a file may be a secret, or was filled in from one.
func called(option, file, at string) string {
	if at == onCommandLine && option != "inherit" {
		return file
	}
	return "the file that " + cmp.Or(option, "an option") + " names"
}

// reason is an error without the path in it.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// read reads a file. A relative name may mean one in any of the directories: if
// it is in several of them, and not the same, which of them uWSGI reads is not
// known. Of those the first stays the one for all further names.
func (f *finder) read(file string) (path string, text []byte, err error) {
	if filepath.IsAbs(file) {
		path = tidy(file)
		text, err = f.in.Read(path)
	} else {
		path, text, err = f.readRelative(file)
	}
	switch f.text += len(text); {
	case err != nil:
	case len(text) > maxFileSize:
		err = fmt.Errorf("longer than %d bytes", maxFileSize)
	case f.text > maxText:
		err = fmt.Errorf("all files together are longer than %d bytes", maxText)
	}
	return path, text, err
}

// tidy makes a path shorter, as long as it holds no "..": that leads from a link to
// a folder elsewhere than back.
func tidy(path string) string {
	if slices.Contains(strings.Split(path, "/"), "..") {
		return path
	}
	return filepath.Clean(path)
}

func (f *finder) readRelative(file string) (path string, text []byte, err error) {
	err = errors.New("it is relative, and the directory is not known")
	found := -1
	for i, dir := range f.in.Dirs {
		here := tidy(dir + "/" + file)
		other, failed := f.in.Read(here)
		switch {
		case errors.Is(failed, fs.ErrNotExist):
			if found < 0 {
				err = failed
			}
		case failed != nil: // it may be there
			return here, nil, failed
		case found < 0:
			path, text, err, found = here, other, nil, i
		case !bytes.Equal(text, other):
			return path, nil, errors.New("it is relative, and in two of the directories in which uWSGI may have been started there are two of that name that differ")
		}
	}
	if found >= 0 {
		f.in.Dirs = f.in.Dirs[found : found+1]
	}
	return path, text, err
}
