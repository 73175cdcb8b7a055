package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"qwatch/internal/bounded"
	"qwatch/remediate"
)

// maxSize bounds a configuration file, in bytes: what is longer is something
// else by mistake.
const maxSize = 1 << 20

// maxErrors bounds a report: nobody reads on.
const maxErrors = 50

// maxPatterns bounds what all sources follow, since each pattern is held
// against each name.
const maxPatterns = 1000

// Load reads and checks the file at path. The error is Errors where the
// content is to blame; fs.ErrNotExist stands wrapped in it where there is no
// file.
func Load(path string) (*Config, error) {
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	f, err := bounded.Open(path)
	switch {
	case err == nil:
		defer f.Close()
	case !errors.Is(err, bounded.ErrNotRegular):
		return nil, fmt.Errorf("read the configuration: %w", err)
	default:
		return nil, Errors{{File: path, Message: "not a regular file", Hint: "name a TOML file, like " + DefaultPath}}
	}
	return Parse(path, f)
}

// Parse reads and checks a configuration; name stands for it in errors. What
// the text does not set is as in Default. The error is Errors, unless r fails.
func Parse(name string, r io.Reader) (*Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration %s: %w", name, err)
	}
	if len(text) > maxSize {
		return nil, Errors{{File: name, Message: "larger than 1 MiB", Hint: "this is hardly a configuration of qwatch; a whole one has 50 lines"}}
	}
	return decode(name, text, Default())
}

// decode puts what the text sets into c.
func decode(name string, text []byte, c *Config) (*Config, error) {
	doc, errs := newDocument(name, text)
	if errs != nil {
		return nil, errs
	}
	p := parser{doc: doc, known: map[string]bool{"": true}}
	p.config(c)
	p.unknown()
	if errs := p.errors(); errs != nil {
		return nil, errs
	}
	return c, nil
}

// parser reads values out of a document. A key is known once it was asked
// for; what nobody asked for is an error.
type parser struct {
	doc   *document
	asked []string        // in the order of config
	known map[string]bool // path to "is a table"
	found []located
}

type located struct {
	at span
	problem
}

// config is the one list of all keys and their rules.
func (p *parser) config(c *Config) {
	p.bool("dry_run", &c.Policy.DryRun)
	p.text("state_dir", &c.StateDir, absolute)
	p.text("socket", &c.Socket, orOff(socketPath))

	word(p, "log.level", &c.Log.Level, "trace", "debug", "info", "warn", "error")
	word(p, "log.format", &c.Log.Format, FormatAuto, FormatConsole, FormatJSON, FormatJournald)

	p.sources(&c.Sources)

	p.duration("probe.interval", &c.Probe.Interval, 0, `"0s" turns the probe off`)
	if c.Probe.Interval > 0 && c.Probe.Interval < 10*time.Millisecond {
		p.badValue("probe.interval", fmt.Sprintf("probe.interval is %v, must be at least 10ms", c.Probe.Interval), `"0s" turns the probe off`)
	}
	p.texts("probe.processes", &c.Probe.Processes, processName)
	trust := "services"
	word(p, "probe.trust", &trust, "services")
	p.listed("probe.users", &c.Probe.Users, userName)

	const noWindow = "an incident needs a time to be seen in"
	p.duration("group.window", &c.Group.Window, 1, noWindow)
	p.integer("group.threshold", &c.Group.Threshold, 1, math.MaxInt32, "1 makes an incident of each hit")
	p.duration("group.quiet", &c.Group.Quiet, 1, noWindow)

	corroborate := ""
	if word(p, "policy.corroborate", &corroborate, "require", "off"); corroborate != "" {
		c.Policy.Corroborate = corroborate == "require"
	}
	p.number("policy.factor", &c.Policy.Factor, 1, 16, "2.0 doubles the limit with each raise")
	const sixteenBits = "from 1 to 65535: kernels before 4.1 keep the accept queue's limit in 16 bits, and refuse a larger somaxconn"
	before := len(p.found)
	p.integer("policy.min_backlog", &c.Policy.MinBacklog, 1, math.MaxUint16, sixteenBits)
	p.integer("policy.max_backlog", &c.Policy.MaxBacklog, 1, math.MaxUint16, sixteenBits)
	if len(p.found) == before {
		p.backlogs(c.Policy.MinBacklog, c.Policy.MaxBacklog)
	}
	p.duration("policy.cooldown", &c.Policy.Cooldown, 0, `"0s" is none`)
	p.integer("policy.give_up_after", &c.Policy.GiveUpAfter, 1, math.MaxInt32, "dry_run = true, if nothing shall be raised")
	p.bool("policy.keep", &c.Policy.Keep)
	p.bool("policy.containers", &c.Policy.Containers)
	p.duration("policy.max_wait", &c.Policy.MaxWait, 1, `the longest wait in the queue that you accept: "10s"`)

	p.bool("policy.sysctl.enabled", &c.Policy.Sysctl)
	p.text("policy.sysctl.file", &c.Policy.SysctlFile, sysctlFile)
	p.also("policy.sysctl.also", &c.Policy.Also)

	p.bool("policy.relisten.enabled", &c.Policy.Relisten)

	word(p, "policy.reload.when", &c.Policy.Reload, remediate.Needed, remediate.Always, remediate.Never)
	p.how("policy.reload.how", &c.Policy.ReloadHow)
	p.bool("policy.reload.deploy", &c.Policy.ReloadDeploy)
	p.duration("policy.reload.timeout", &c.Policy.ReloadTimeout, 1, "a reload needs some time")
	p.duration("policy.reload.cooldown", &c.Policy.ReloadCooldown, 0, `"0s" is none`)
	p.integer("policy.reload.max_per_hour", &c.Policy.ReloadsPerHour, 0, math.MaxInt32, "0 allows none")

	p.text("metrics.listen", &c.Metrics.Listen, orOff(hostPort))
}

// sources reads each [[source]].
func (p *parser) sources(to *[]Source) {
	p.know("source", false)
	list, ok := get[[]any](p, "source", "a list of tables", `write "[[source]]" above each`)
	if !ok {
		return
	}
	total := 0
	for i := range list {
		at := index("source", i)
		p.know(at, true)
		if _, ok := get[map[string]any](p, at, "a table", `source = [{files = ["/var/log/uwsgi/*.log"]}], or "[[source]]" on its own line`); !ok {
			continue
		}
		var s Source
		p.texts(join(at, "files"), &s.Files, glob)
		p.texts(join(at, "journal"), &s.Journal, unit)
		p.text(join(at, "stats"), &s.Stats, statsAddress)
		var kinds []string
		for _, k := range []struct {
			key   string
			count int
		}{{"files", len(s.Files)}, {"journal", len(s.Journal)}, {"stats", min(len(s.Stats), 1)}} {
			path := join(at, k.key)
			if _, ok := p.doc.values[path]; ok {
				kinds = append(kinds, k.key)
			}
			if total += k.count; total > maxPatterns {
				if k.key != "stats" {
					path = index(path, k.count-(total-maxPatterns)) // the first that is too much
				}
				p.badValue(path, fmt.Sprintf("more than %d files, units and stats servers", maxPatterns), `name them by fewer, wider patterns: "/var/log/uwsgi/*.log"`)
				return
			}
		}
		switch len(kinds) {
		case 0:
			p.badValue(at, "this source names nothing to follow", "give it one of: files, journal, stats")
		case 1:
		default:
			p.badKey(join(at, kinds[1]), "this source has "+strings.Join(kinds, " and "), "each in a [[source]] of its own")
		}
		s.Journal = wholeUnits(s.Journal)
		*to = append(*to, s)
	}
}

// backlogs checks the two ends against each other and blames the one that the
// file sets.
func (p *parser) backlogs(lo, hi int) {
	if lo <= hi {
		return
	}
	at, least, most := "policy.min_backlog", fmt.Sprint(lo), fmt.Sprint(hi)
	if _, ok := p.doc.values[at]; !ok {
		at, least = "policy.max_backlog", least+", the default"
	} else if _, ok := p.doc.values["policy.max_backlog"]; !ok {
		most += ", the default"
	}
	p.badValue(at, fmt.Sprintf("policy.min_backlog (%s) is more than policy.max_backlog (%s)", least, most),
		"a raise aims at no less than min_backlog and at no more than max_backlog")
}

// also reads the keys that are raised with somaxconn; their names are the
// administrator's.
func (p *parser) also(path string, to *map[string]int) {
	p.know(path, true)
	table, ok := p.doc.values[path].(map[string]any)
	if !ok { // absent, or for unknown to complain of
		return
	}
	*to = map[string]int{}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		at := join(path, key)
		p.know(at, false)
		if _, ok := table[key].(map[string]any); ok {
			p.badValue(at, quoted(key)+" is only a part of a sysctl key", `put the key in quotes, for its dots: "net.core.netdev_max_backlog" = 16384`)
			continue
		}
		name, err := sysctlKey(key)
		if err != nil {
			p.badKey(at, err.what, err.hint)
			continue
		}
		if _, twice := (*to)[name]; twice {
			p.badKey(at, name+" is set twice", `"/" and "." are the same here; keep one`)
			continue
		}
		value := 0
		p.integer(at, &value, 1, math.MaxInt32, "qwatch only ever raises a key to this value")
		(*to)[name] = value
	}
}
