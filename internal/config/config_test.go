package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/remediate"
)

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("qwatch.toml", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The defaults are what the shipped file says; these are the ones that are
// promised.
func TestBuiltIn(t *testing.T) {
	want := &Config{
		StateDir: DefaultStateDir,
		Socket:   "/run/qwatch/qwatch.sock",
		Log:      Log{"info", FormatAuto},
		Sources: []Source{
			{Files: []string{"/var/log/uwsgi/*.log", "/var/log/uwsgi/app/*.log"}},
			{Journal: []string{"uwsgi.service", "uwsgi@*.service"}},
		},
		Probe: Probe{Interval: time.Second, Processes: []string{"uwsgi", "uwsgi-core"}, Users: []string{}},
		Group: Group{Window: 30 * time.Second, Threshold: 3, Quiet: time.Minute},
		Policy: remediate.Policy{
			DryRun:      true,
			Corroborate: true,
			Factor:      2,
			MinBacklog:  1024,
			MaxBacklog:  8192,
			Cooldown:    time.Minute,
			GiveUpAfter: 3,
			Keep:        true,
			MaxWait:     10 * time.Second,
			Sysctl:      true,
			SysctlFile:  "/etc/sysctl.d/90-qwatch.conf",
			Also: map[string]int{
				"net.core.netdev_max_backlog":  16384,
				"net.ipv4.tcp_max_syn_backlog": 8192,
			},
			Relisten:       true,
			Reload:         remediate.Needed,
			ReloadHow:      remediate.How{Method: remediate.MethodAuto},
			ReloadTimeout:  90 * time.Second,
			ReloadCooldown: 10 * time.Minute,
			ReloadsPerHour: 4,
		},
		Metrics: Metrics{Listen: "127.0.0.1:9918"},
	}
	if diff := cmp.Diff(want, BuiltIn()); diff != "" {
		t.Errorf("built in (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, parse(t, string(Example))); diff != "" {
		t.Errorf("the shipped file (-want +got):\n%s", diff)
	}
	if !BuiltIn().Policy.DryRun {
		t.Error("the built-in configuration is not a dry run")
	}
	if w := BuiltIn().Warnings(); w != nil {
		t.Errorf("the built-in configuration warns: %q", w)
	}
}

func TestEmptyFileIsDefault(t *testing.T) {
	if s := Default().Sources; s != nil {
		t.Errorf("sources by default: %v", s)
	}
	if diff := cmp.Diff(Default(), parse(t, "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEveryKey(t *testing.T) {
	got := parse(t, `
dry_run = false
state_dir = "/srv/qwatch"
socket = ""
source = [
	{files = ["/a/[ab]?.log", "/a/*.log"]},
	{journal = ['web@\x2d*.service', "app", "app.v2", "app.socket", "app*", "app.?", "app.[ab]"]},
	{stats = "/run/uwsgi/stats"}, {stats = "[::1]:9191"}, {stats = "http://127.0.0.1:9192"},
]
log.level = "trace"
log.format = "journald"
probe = {interval = "0s", processes = ["uwsgi_python3"], trust = "services", users = ["alice", "1001"]}
metrics.listen = ""
[group]
window = "1m30s"
threshold = 1
quiet = "1h"
[policy]
corroborate = "off"
factor = 16
min_backlog = 1
max_backlog = 65_535
cooldown = "0s"
give_up_after = 1
keep = false
containers = true
max_wait = "500ms"
sysctl.enabled = false
sysctl.file = "/run/sysctl.d/x.conf"
sysctl.also = {"net/ipv4/tcp_max_syn_backlog" = 0x1000}
relisten.enabled = false
reload = {when = "never", how = "fifo:/run/uwsgi/fifo", timeout = "1s", cooldown = "0s", max_per_hour = 0}
`)
	want := &Config{
		StateDir: "/srv/qwatch",
		Log:      Log{"trace", FormatJournald},
		Sources: []Source{
			{Files: []string{"/a/[ab]?.log", "/a/*.log"}},
			{Journal: []string{`web@\x2d*.service`, "app.service", "app.v2.service", "app.socket", "app*", "app.?", "app.[ab]"}},
			{Stats: "/run/uwsgi/stats"}, {Stats: "[::1]:9191"}, {Stats: "http://127.0.0.1:9192"},
		},
		Probe: Probe{Processes: []string{"uwsgi_python3"}, Users: []string{"alice", "1001"}},
		Group: Group{90 * time.Second, 1, time.Hour},
		Policy: remediate.Policy{
			Factor: 16, MinBacklog: 1, MaxBacklog: 65535,
			GiveUpAfter: 1, Containers: true, MaxWait: 500 * time.Millisecond,
			SysctlFile: "/run/sysctl.d/x.conf", Also: map[string]int{"net.ipv4.tcp_max_syn_backlog": 4096},
			Reload: remediate.Never, ReloadHow: remediate.How{Method: remediate.MethodFIFO, Path: "/run/uwsgi/fifo"}, ReloadTimeout: time.Second,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A field of Policy that no key reaches would be zero for ever, and nothing
// would say so: the shipped file, which has every key, must set them all.
func TestEveryFieldOfPolicyHasItsKey(t *testing.T) {
	text := string(Example)
	doc, errs := newDocument("qwatch.toml", []byte(text))
	if errs != nil {
		t.Fatal(errs)
	}
	c := Default()
	if !other(reflect.ValueOf(&c.Policy).Elem()) {
		t.Fatal("a field has a kind that this test does not know")
	}
	c.Policy.AssumeRights = false // follows from the others, and is set by who knows how it runs
	p := parser{doc: doc, known: map[string]bool{"": true}}
	p.config(c)
	if errs := p.errors(); errs != nil {
		t.Fatal(errs)
	}
	if diff := cmp.Diff(Default().Policy, c.Policy); diff != "" {
		t.Errorf("the shipped file does not set (-default +got):\n%s", diff)
	}
}

// other makes each field of v differ from its default.
func other(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if !other(v.Field(i)) {
				return false
			}
		}
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Map:
		v.SetZero()
	default:
		return false
	}
	return true
}

func TestAlsoReplacesDefaults(t *testing.T) {
	if got := parse(t, "[policy.sysctl.also]\n").Policy.Also; len(got) != 0 {
		t.Errorf("an empty table leaves %v", got)
	}
}

// TestBad compares whole reports: testdata/bad/NAME.toml with NAME.txt.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, "toml") + "txt")
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse("qwatch.toml", bytes.NewReader(text))
			if c != nil || !errors.As(err, new(Errors)) {
				t.Fatalf("got %v, %v, want Errors", c, err)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorFields(t *testing.T) {
	_, err := Parse("f", strings.NewReader("\n\tlog = 'x'"))
	want := Errors{{
		File: "f", Line: 2, Column: 8, Message: "log must be a table, not text",
		Excerpt: "  2 | \tlog = 'x'\n    | \t      ^~~", Hint: `write "[log]", and its keys below`,
	}}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBounds(t *testing.T) {
	_, err := Parse("f", strings.NewReader(strings.Repeat("#", maxSize+1)))
	if err == nil || !strings.HasPrefix(err.Error(), "f: larger than 1 MiB\nhint: ") {
		t.Errorf("over the size: %v", err)
	}
	parse(t, strings.Repeat("#", maxSize))
	_, err = Parse("f", strings.NewReader(unknownTables(200)))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors+1 || errs[maxErrors].Message != "150 more errors" {
		t.Errorf("many errors: %d of them: %v", len(errs), err)
	}
}

// What a file could grow with its square, or deeper than the stack, is refused
// in no time.
func TestHostile(t *testing.T) {
	const n = maxSize/2 - 10
	var many strings.Builder
	many.WriteString("[[source]]\nfiles = [")
	for i := range 50_000 {
		fmt.Fprintf(&many, "\"/%d*\",\n", i)
	}
	many.WriteString("]")
	for _, tt := range []struct{ name, text, want string }{
		{"arrays", "a = " + strings.Repeat("[", n) + strings.Repeat("]", n), "f:1:10005: arrays and inline tables are nested more"},
		{"shallower arrays", "a = " + strings.Repeat("[", 20) + strings.Repeat("]", 20), "f:1:1: nested more than 16 deep\n"},
		{"dotted key", "a" + strings.Repeat(".a", n-10) + " = 1", "f:1:33: nested more than 16 deep\n"},
		{"inline tables", strings.Repeat("a={", 20) + strings.Repeat("}", 20), "f:1:54: nested more than 16 deep\n"},
		{"globs", many.String(), "f:1002:1: more than 1000 files, units and stats servers\n"},
		{"the same key", strings.Repeat("a=1\n", maxSize/4), "f:2:1: a is set twice\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", strings.NewReader(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %.200v, want %q", err, tt.want)
			}
		})
	}
}

// unknownTables is a file of n of them.
func unknownTables(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("[z" + strings.Repeat("z", i) + "]\n")
	}
	return b.String()
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "qwatch.toml")
	if err := os.WriteFile(file, []byte("dry_run = false"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil || c.Policy.DryRun {
		t.Errorf("got %v, %v", c, err)
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, "/dev/null"} {
		if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+": not a regular file\nhint: ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestUseStateDirectory(t *testing.T) {
	for _, tt := range []struct{ dir, env, want, err string }{
		{DefaultStateDir, "", DefaultStateDir, ""},
		{DefaultStateDir, "/a", "/a", ""},
		{DefaultStateDir, "/a:/b", "/a", ""},
		{"/mine", "/a", "/mine", ""},
		{DefaultStateDir, "a", DefaultStateDir, "$STATE_DIRECTORY: \"a\" is not an absolute path\nhint: write the whole path, from /"},
	} {
		c := Default()
		c.StateDir = tt.dir
		text := ""
		if err := c.UseStateDirectory(tt.env); err != nil {
			text = err.Error()
		}
		if c.StateDir != tt.want || text != tt.err {
			t.Errorf("%q with %q: got %q, %q, want %q, %q", tt.dir, tt.env, c.StateDir, text, tt.want, tt.err)
		}
	}
}

// Lines are handed over once all the same: no overlap is an error.
func TestSourcesMayOverlap(t *testing.T) {
	got := parse(t, `
source = [
	{files = ["/a/*.log", "/a/b.log"]}, {files = ["/a/b.log", "/**"]},
	{journal = ["web"]}, {journal = ["web.service", "w*.service"]},
	{stats = "127.0.0.1:1"}, {stats = "127.0.0.1:1"},
]`).Sources
	want := []Source{
		{Files: []string{"/a/*.log", "/a/b.log"}}, {Files: []string{"/a/b.log", "/**"}},
		{Journal: []string{"web.service"}}, {Journal: []string{"web.service", "w*.service"}},
		{Stats: "127.0.0.1:1"}, {Stats: "127.0.0.1:1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUseSources(t *testing.T) {
	for _, tt := range []struct {
		name         string
		files, units []string
		want         []Source
		err          string
	}{
		{"none", nil, nil, BuiltIn().Sources, ""},
		{"files", []string{"/a/*.log", "/a/b.log"}, nil, []Source{{Files: []string{"/a/*.log", "/a/b.log"}}}, ""},
		{"both", []string{"/a"}, []string{"u", "u.v2"}, []Source{{Files: []string{"/a"}}, {Journal: []string{"u.service", "u.v2.service"}}}, ""},
		{"overlapping", []string{"/b", "/*"}, nil, []Source{{Files: []string{"/b", "/*"}}}, ""},
		{"bad", []string{"a", "/b", "/b"}, []string{""}, BuiltIn().Sources, `--file: "a" is not an absolute path
hint: write the whole path, from /
--journal: "" is not a unit name or pattern
hint: like "uwsgi.service" or "uwsgi@*.service"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := BuiltIn()
			text := ""
			if err := c.UseSources(tt.files, tt.units); err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, c.Sources); diff != "" {
				t.Errorf("sources (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	c := Default()
	c.Probe.Interval = 0
	c.Policy.Relisten = false
	c.Policy.Reload = remediate.Never
	c.Policy.Corroborate = false
	c.Policy.MaxBacklog = 16384
	c.Metrics.Listen = ":9918"
	want := []string{
		"no [[source]] is named and probe.interval is 0s: there is nothing to watch",
		"policy.relisten is off and policy.reload.when is never: no running socket will ever be raised, only the next start profits",
		"policy.corroborate is off: whoever can write a line into a watched log can have limits raised",
		"policy.max_backlog is 16384: at 100 requests a second the last in such a queue waits 2m43s, longer than a proxy usually does (60s)",
		`metrics.listen is ":9918": everyone who reaches this address can read the metrics`,
	}
	if diff := cmp.Diff(want, c.Warnings()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, addr := range []string{"", "localhost:1", "127.8.0.1:1", "[::1]:1"} {
		c := Default()
		c.Metrics.Listen = addr
		if w := c.Warnings(); w != nil {
			t.Errorf("metrics.listen = %q: %q", addr, w)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(Example))
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", strings.NewReader(text))
		if err == nil {
			p := c.Policy
			if p.MinBacklog < 1 || p.MinBacklog > p.MaxBacklog || p.MaxBacklog > 65535 || !(p.Factor > 1 && p.Factor <= 16) {
				t.Errorf("unchecked policy: %+v", p)
			}
			c.Warnings()
			return
		}
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 || c != nil {
			t.Fatalf("got %v, %v", c, err)
		}
		for _, e := range errs {
			if e.Message == "" || e.Hint == "" || strings.ContainsAny(e.Error(), "\x00\x1b\r") {
				t.Errorf("bad report %q", e.Error())
			}
			if e.Line < 1 && !strings.HasSuffix(e.Message, " more errors") || e.Line > 0 && e.Column < 1 {
				t.Errorf("no place in %q", e.Error())
			}
		}
	})
}
