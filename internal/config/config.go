// Package config reads qwatch's TOML file into a checked Config. A Config
// that Parse or Load hands over needs no second check; what is wrong with a
// file is reported in one go, each error with its place, the line and a hint.
//
// The package reads no environment and no clock.
package config

import (
	_ "embed"
	"fmt"
	"net"
	"strings"
	"time"

	"qwatch/remediate"
)

// DefaultPath is the file that is read when no other is named.
const DefaultPath = "/etc/qwatch/qwatch.toml"

// DefaultStateDir is where qwatch keeps its state when nothing else is named.
const DefaultStateDir = "/var/lib/qwatch"

// Example is the commented file that is installed as DefaultPath. Its values are
// the defaults.
//
//go:embed qwatch.toml
var Example []byte

// Config is a whole, checked configuration.
type Config struct {
	StateDir string // absolute
	Socket   string // absolute path of the status API's socket; "" is off
	Log      Log
	Sources  []Source
	Probe    Probe
	Group    Group
	Policy   remediate.Policy
	Metrics  Metrics
}

// Log says how much qwatch itself logs, and how.
type Log struct {
	Level  string // the least severe one that is logged, as zerolog calls it
	Format Format
}

// Source is one thing to follow. Exactly one of its fields is set. Sources may
// overlap: the first that matches a file or a unit owns it.
type Source struct {
	// Files are clean, absolute globs in the syntax of doublestar.PathMatch.
	Files []string
	// Journal are whole unit names, like "uwsgi.service", or globs of them.
	Journal []string
	// Stats is a uWSGI stats server: host:port, or a UNIX socket's absolute
	// path; "http://" stands in front of one that speaks HTTP.
	Stats string
}

// Probe samples the accept queues themselves.
type Probe struct {
	Interval  time.Duration // 0 is off, else at least 10 ms
	Processes []string      // names of the processes whose sockets are looked at
	Users     []string      // names or numbers of users whose uWSGIs are trusted too
}

// Group makes incidents of hits.
type Group struct {
	Window    time.Duration // more than 0
	Threshold int           // this many hits within Window open an incident; at least 1
	Quiet     time.Duration // no hit for so long closes it; more than 0
}

// Metrics serves Prometheus.
type Metrics struct {
	Listen string // host:port; "" is off
}

// Format is the form of the log lines.
type Format string

// FormatAuto is journald when standard error is the journal, console on a
// terminal, else json.
const (
	FormatAuto     Format = "auto"
	FormatConsole  Format = "console"
	FormatJSON     Format = "json"
	FormatJournald Format = "journald"
)

// Default is what a file without a single key means: all that the Example says,
// but for its sources.
func Default() *Config {
	c := BuiltIn()
	c.Sources = nil
	return c
}

// BuiltIn holds when there is no file: the Example, so a dry run, and the places
// where distributions have uWSGI log.
func BuiltIn() *Config {
	c, err := decode(DefaultPath, Example, &Config{})
	if err != nil {
		panic(err)
	}
	return c
}

// UseStateDirectory lets the value of $STATE_DIRECTORY stand in for the
// default state_dir. Of several paths (systemd.exec(5): separated by colons)
// the first counts; "" changes nothing. A file that spells the default out
// means the default too: the installed one does.
func (c *Config) UseStateDirectory(env string) error {
	dir, _, _ := strings.Cut(env, ":")
	if dir == "" || c.StateDir != DefaultStateDir {
		return nil
	}
	if err := absolute(dir); err != nil {
		return &Error{Message: "$STATE_DIRECTORY: " + err.what, Hint: err.hint}
	}
	c.StateDir = dir
	return nil
}

// UseSources puts the globs of --file and the units of --journal in the place
// of all sources, held to the same rules as the file's. Without any of both
// it changes nothing.
func (c *Config) UseSources(files, units []string) error {
	if len(files)+len(units) == 0 {
		return nil
	}
	var errs Errors
	check := func(flag string, patterns []string, rule func(string) *problem) {
		for _, p := range patterns {
			if err := rule(p); err != nil {
				errs = append(errs, &Error{Message: flag + ": " + err.what, Hint: err.hint})
			}
		}
	}
	check("--file", files, glob)
	check("--journal", units, unit)
	if errs != nil {
		return errs
	}
	c.Sources = nil
	if len(files) > 0 {
		c.Sources = append(c.Sources, Source{Files: files})
	}
	if len(units) > 0 {
		c.Sources = append(c.Sources, Source{Journal: wholeUnits(units)})
	}
	return nil
}

// Warnings says what is legal but odd, in whole sentences.
func (c *Config) Warnings() []string {
	var w []string
	warn := func(odd bool, text string) {
		if odd {
			w = append(w, text)
		}
	}
	p := &c.Policy
	warn(len(c.Sources) == 0 && c.Probe.Interval == 0,
		"no [[source]] is named and probe.interval is 0s: there is nothing to watch")
	warn(!p.Relisten && p.Reload == remediate.Never,
		"policy.relisten is off and policy.reload.when is never: no running socket will ever be raised, only the next start profits")
	warn(!p.Corroborate,
		"policy.corroborate is off: whoever can write a line into a watched log can have limits raised")
	warn(p.MaxBacklog > 8192,
		fmt.Sprintf("policy.max_backlog is %d: at 100 requests a second the last in such a queue waits %s, longer than a proxy usually does (60s)",
			p.MaxBacklog, time.Duration(p.MaxBacklog/100)*time.Second))
	warn(!loopback(c.Metrics.Listen),
		fmt.Sprintf("metrics.listen is %q: everyone who reaches this address can read the metrics", c.Metrics.Listen))
	return w
}

// loopback tells whether only this host reaches addr. Off counts as that.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err != nil || host == "localhost" || ip != nil && ip.IsLoopback()
}
