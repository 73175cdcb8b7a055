package config

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

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
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
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
	doc, errs := newDocument(name, text)
	if errs != nil {
		return nil, errs
	}
	p := parser{doc: doc, known: map[string]bool{"": true}}
	c := Default()
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
	found []problem
}

type problem struct {
	at span
	flaw
}

// config is the one list of all keys and their rules.
func (p *parser) config(c *Config) {
	p.bool("dry_run", &c.Policy.DryRun)
	p.text("state_dir", &c.StateDir, absolute)
	p.text("socket", &c.Socket, orOff(socketPath))

	word(p, "log.level", &c.Log.Level, LevelTrace, LevelDebug, LevelInfo, LevelWarn, LevelError)
	word(p, "log.format", &c.Log.Format, FormatAuto, FormatConsole, FormatJSON, FormatJournald)

	p.sources(&c.Sources)

	p.duration("probe.interval", &c.Probe.Interval, 0, `"0s" turns the probe off`)
	if c.Probe.Interval > 0 && c.Probe.Interval < 10*time.Millisecond {
		p.fault("probe.interval", fmt.Sprintf("probe.interval is %v, must be at least 10ms", c.Probe.Interval), `"0s" turns the probe off`)
	}
	p.texts("probe.processes", &c.Probe.Processes, processName)

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
	faults := len(p.found)
	p.integer("policy.min_backlog", &c.Policy.MinBacklog, 1, math.MaxUint16, sixteenBits)
	p.integer("policy.max_backlog", &c.Policy.MaxBacklog, 1, math.MaxUint16, sixteenBits)
	if len(p.found) == faults {
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
				p.fault(path, fmt.Sprintf("more than %d files, units and stats servers", maxPatterns), `name them by fewer, wider patterns: "/var/log/uwsgi/*.log"`)
				return
			}
		}
		switch len(kinds) {
		case 0:
			p.fault(at, "this source names nothing to follow", "give it one of: files, journal, stats")
		case 1:
		default:
			p.faultKey(join(at, kinds[1]), "this source has "+strings.Join(kinds, " and "), "each in a [[source]] of its own")
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
	p.fault(at, fmt.Sprintf("policy.min_backlog (%s) is more than policy.max_backlog (%s)", least, most),
		"a raise aims at no less than min_backlog and at no more than max_backlog")
}

// also reads the companions of somaxconn, whose names are the administrator's.
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
			p.fault(at, show(key)+" is only a part of a sysctl key", `put the key in quotes, for its dots: "net.core.netdev_max_backlog" = 16384`)
			continue
		}
		name, err := sysctlKey(key)
		if err != nil {
			p.faultKey(at, err.what, err.hint)
			continue
		}
		if _, twice := (*to)[name]; twice {
			p.faultKey(at, name+" is set twice", `"/" and "." are the same here; keep one`)
			continue
		}
		value := 0
		p.integer(at, &value, 1, math.MaxInt32, "qwatch only ever raises a key to this value")
		(*to)[name] = value
	}
}

// know makes path known, and the tables that it stands in.
func (p *parser) know(path string, table bool) {
	p.asked = append(p.asked, path)
	p.known[path] = table
	for i, r := range path {
		if r == '.' && !strings.Contains(path[:i], `"`) {
			if _, ok := p.known[path[:i]]; !ok {
				p.asked = append(p.asked, path[:i])
			}
			p.known[path[:i]] = true
		}
	}
}

// fault notes what is wrong with the value of path.
func (p *parser) fault(path, what, hint string) {
	p.found = append(p.found, problem{p.doc.places[path], flaw{what, hint}})
}

// faultKey notes what is wrong with the key of path.
func (p *parser) faultKey(path, what, hint string) {
	p.found = append(p.found, problem{p.doc.keys[path], flaw{what, hint}})
}

// get is the value of path, if the file has one and it is of the kind that
// want says in words.
func get[T any](p *parser, path, want, hint string) (value T, ok bool) {
	v, set := p.doc.values[path]
	if !set {
		return value, false
	}
	if value, ok = v.(T); !ok {
		p.fault(path, fmt.Sprintf("%s must be %s, not %s", path, want, noun(v)), hint)
	}
	return value, ok
}

func noun(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a fraction"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

func (p *parser) bool(path string, to *bool) {
	p.know(path, false)
	if v, ok := get[bool](p, path, "a boolean", "true or false, without quotes"); ok {
		*to = v
	}
}

func (p *parser) integer(path string, to *int, lo, hi int64, hint string) {
	p.know(path, false)
	v, ok := get[int64](p, path, "an integer", fmt.Sprintf("a whole number without quotes, like %d", max(*to, 1)))
	switch {
	case !ok:
	case v < lo:
		p.fault(path, fmt.Sprintf("%s is %d, must be at least %d", path, v, lo), hint)
	case v > hi:
		p.fault(path, fmt.Sprintf("%s is %d, must be at most %d", path, v, hi), hint)
	default:
		*to = int(v)
	}
}

// number reads a fraction or an integer that is more than above and at most
// hi.
func (p *parser) number(path string, to *float64, above, hi float64, hint string) {
	p.know(path, false)
	v, ok := p.doc.values[path].(float64)
	if n, whole := p.doc.values[path].(int64); whole {
		v, ok = float64(n), true
	}
	if !ok {
		get[float64](p, path, "a number", "without quotes: "+hint)
		return
	}
	if !(v > above && v <= hi) { // so that NaN is out
		p.fault(path, fmt.Sprintf("%s is %v, must be more than %v and at most %v", path, v, above, hi), hint)
		return
	}
	*to = v
}

const durationHint = `as Go writes them, in quotes: "500ms", "30s", "5m", "1h"`

func (p *parser) duration(path string, to *time.Duration, lo time.Duration, hint string) {
	p.know(path, false)
	text, ok := get[string](p, path, "a duration", durationHint)
	if !ok {
		return
	}
	v, err := time.ParseDuration(text)
	switch {
	case err != nil:
		p.fault(path, path+": "+show(text)+" is not a duration", durationHint)
	case v < 0:
		p.fault(path, fmt.Sprintf("%s is %v, must not be negative", path, v), hint)
	case v < lo:
		p.fault(path, fmt.Sprintf("%s is %v, must be more than 0s", path, v), hint)
	default:
		*to = v
	}
}

func (p *parser) text(path string, to *string, check func(string) *flaw) {
	p.know(path, false)
	v, ok := get[string](p, path, "text", "put it in double quotes")
	if !ok {
		return
	}
	if err := check(v); err != nil {
		p.fault(path, path+": "+err.what, err.hint)
		return
	}
	*to = v
}

// texts reads a list that is not empty. A bad element leaves "" behind.
func (p *parser) texts(path string, to *[]string, check func(string) *flaw) {
	p.know(path, false)
	list, ok := get[[]any](p, path, "a list", `put it in brackets: ["…", "…"]`)
	if !ok {
		return
	}
	if len(list) == 0 {
		p.fault(path, path+" is empty", "name at least one, or take the line out")
	}
	*to = make([]string, len(list))
	for i := range list {
		p.text(index(path, i), &(*to)[i], check)
	}
}

// word reads one of the words.
func word[T ~string](p *parser, path string, to *T, words ...T) {
	var texts []string
	for _, w := range words {
		texts = append(texts, string(w))
	}
	text := string(*to)
	p.text(path, &text, func(v string) *flaw {
		if slices.Contains(texts, v) {
			return nil
		}
		return &flaw{show(v) + " is not a choice", "one of: " + strings.Join(texts, ", ")}
	})
	*to = T(text)
}

// how reads auto, signal, systemd, fifo:PATH and touch:PATH.
func (p *parser) how(path string, to *remediate.How) {
	text := ""
	p.text(path, &text, reloadHow)
	if method, file, _ := strings.Cut(text, ":"); text != "" {
		*to = remediate.How{Method: remediate.Method(method), Path: file}
	}
}

// unknown notes each key and table that nobody asked for, but nothing below
// one that is already wrong, and each table that is none.
func (p *parser) unknown() {
	for _, e := range p.doc.entries {
		value := p.doc.values[e.path]
		_, isTable := value.(map[string]any)
		wantTable, known := p.known[e.path]
		switch {
		case known && wantTable && !isTable:
			p.fault(e.path, fmt.Sprintf("%s must be a table, not %s", e.path, noun(value)),
				fmt.Sprintf(`write "[%s]", and its keys below`, e.path))
		case !known && p.known[e.table]:
			what, where := "key", ""
			if isTable {
				what = "table"
			}
			if e.table != "" {
				where = " in " + header(e.table)
			}
			p.faultKey(e.path, "unknown "+what+" "+show(e.key)+where, p.nearest(e))
		}
	}
}

// header writes a table's path as the file would.
func header(table string) string {
	if name, _, ok := strings.Cut(table, "["); ok {
		return "[[" + name + "]]"
	}
	return "[" + table + "]"
}

// nearest is the hint for an unknown key: a known one that is spelled like it
// in the same table, else the table where the key belongs, else all keys here.
func (p *parser) nearest(e entry) string {
	var here, elsewhere []string
	for _, path := range p.asked {
		table, key := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			table, key = path[:i], path[i+1:]
		}
		switch {
		case strings.ContainsAny(key, `["`):
		case table == e.table:
			here = append(here, key)
		case key == e.key && table == "":
			elsewhere = append(elsewhere, "at the top, above the first table")
		case key == e.key:
			elsewhere = append(elsewhere, "in "+header(table))
		}
	}
	slices.Sort(here)
	best, least := "", max(2, len(e.key)/3)+1
	for _, key := range here {
		if d := distance(e.key, key); d < least {
			best, least = key, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	if elsewhere != nil {
		slices.Sort(elsewhere)
		return "it belongs " + strings.Join(slices.Compact(elsewhere), " or ")
	}
	if key, place := p.elsewhere(e); key != "" {
		return fmt.Sprintf("did you mean %q? It belongs %s", key, place)
	}
	return "known here: " + strings.Join(here, ", ")
}

// elsewhere finds the key of another table that is spelled most like this
// one, and says where it belongs.
func (p *parser) elsewhere(e entry) (best, place string) {
	least := max(2, len(e.key)/3) + 1
	for _, path := range p.asked {
		table, key := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			table, key = path[:i], path[i+1:]
		}
		d := distance(e.key, key)
		if strings.ContainsAny(key, `["`) || d >= least {
			continue
		}
		best, least, place = key, d, "at the top, above the first table"
		if table != "" {
			place = "in " + header(table)
		}
	}
	return best, place
}

// distance is how many characters one must insert, take out or change (or
// swap with a neighbour) to make b of a.
func distance(a, b string) int {
	const far = 1 << 30
	if len(a) > 2*len(b)+8 {
		return far
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// errors renders what was found, in the order of the file.
func (p *parser) errors() Errors {
	slices.SortStableFunc(p.found, func(a, b problem) int { return cmp.Compare(a.at.offset, b.at.offset) })
	var errs Errors
	for i, f := range p.found {
		if i == maxErrors {
			errs = append(errs, &Error{File: p.doc.name, Message: fmt.Sprintf("%d more errors", len(p.found)-i), Hint: "correct these first"})
			break
		}
		errs = append(errs, p.doc.errorAt(f.at, f.flaw))
	}
	return errs
}
