package uwsgiconf

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }

// process is the Input of a running process, as a caller would make it.
func process(t *testing.T, pid int) Input {
	t.Helper()
	list := func(name string) []string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00")
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return Input{
		Args: list("cmdline"), Environ: list("environ"), Dirs: []string{cwd}, Hostname: hostname,
		Read: func(path string) ([]byte, error) { return os.ReadFile(fmt.Sprintf("/proc/%d/root%s", pid, path)) },
	}
}

// forms are configurations that real uWSGI starts with. DIR stands for the
// directory of the files. at is the end of Setting.At.
var forms = []struct {
	name  string
	args  string // separated by blanks
	env   string
	files map[string]string
	want  int
	at    string
}{
	{name: "default", want: 100, at: "default"},
	{name: "long", args: "--listen 201", want: 201, at: "command line"},
	{name: "long with equals", args: "--listen=201", want: 201, at: "command line"},
	{name: "short", args: "-l 201", want: 201, at: "command line"},
	{name: "short, joined", args: "-l201", want: 201, at: "command line"},
	{name: "short, behind flags", args: "-Ml201", want: 201, at: "command line"},
	{name: "twice: the last", args: "--listen 201 -l 202", want: 202, at: "command line"},
	{name: "the beginning of a name", args: "--vac --listen 201", want: 201, at: "command line"},
	{name: "environment", env: "UWSGI_LISTEN=203", want: 203, at: "environment UWSGI_LISTEN"},
	{name: "environment loses to the command line", env: "UWSGI_LISTEN=203", args: "--listen 201", want: 201, at: "command line"},
	{name: "environment loses to a file", env: "UWSGI_LISTEN=203", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/a.ini:2"},
	{name: "environment names a file", env: "UWSGI_INI=a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/a.ini:2"},
	{name: "file behind listen", args: "--listen 201 --ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/a.ini:2"},
	{name: "file before listen", args: "--ini a.ini --listen 201",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n"}, want: 201, at: "command line"},
	{name: "positional file is last", args: "a.ini --listen 201",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/a.ini:2"},
	{name: "positional file behind a flag", args: "--vacuum a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/a.ini:2"},
	{name: "two files, as Debian's init script", args: "--ini a.ini --ini b.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n", "b.ini": "[uwsgi]\nlisten=205\n"}, want: 205, at: "/b.ini:2"},
	{name: "twice in a file: the last", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=204\n# listen=9\n ; listen = 8\nlisten = 205 ; no comment\r\n"}, want: 205, at: "/a.ini:5"},
	{name: "another section's is not ours", args: "--ini a.ini",
		files: map[string]string{"a.ini": "listen=1\n[app]\nlisten=204\n[uwsgi]\nharakiri=3\n[x]\nlisten=9"}, want: 100, at: "default"},
	{name: "what ends a section's name", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi)\nlisten=204\n[uwsg\nlisten=9\n"}, want: 204, at: "/a.ini:2"},
	{name: "section asked for", args: "--ini a.ini:app",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=203\n[app]\nlisten=204\n"}, want: 204, at: "/a.ini:4"},
	{name: "section of the same file", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nini=:app\n[app]\nlisten=204\n"}, want: 204, at: "/a.ini:4"},
	{name: "section in two pieces", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=203\n[app]\n[uwsgi]\nlisten=204"}, want: 204, at: "/a.ini:5"},
	{name: "include wins over what stands before", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=203\ninclude=b.ini\n", "b.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/b.ini:2"},
	{name: "include loses to what stands behind", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\ninclude=b.ini\nlisten=203\n", "b.ini": "[uwsgi]\nlisten=204\n"}, want: 203, at: "/a.ini:3"},
	{name: "inherit wins over all", args: "--inherit b.ini --ini a.ini --listen 201",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=203\n", "b.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/b.ini:2"},
	{name: "inherit by a placeholder", args: "--ini a.ini", env: "STAGE=b",
		files: map[string]string{"a.ini": "[uwsgi]\ninherit=%(base)/$(STAGE).ini\nset-ph=base=%d\n", "b.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/b.ini:2"},
	{name: "magic in an include", args: "--ini apps/web.ini",
		files: map[string]string{"apps/web.ini": "[uwsgi]\nini=%d../conf/%n-%c.%e\n", "conf/web-apps.ini": "[uwsgi]\nlisten=204\n"}, want: 204, at: "/conf/web-apps.ini:2"},
	{name: "magic of the first file", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nini=b.ini\n", "b.ini": "[uwsgi]\nlisten=20%%4\nini=%N-%n.ini", "a-b.ini": "[uwsgi]\nlisten=205%z"}, want: 205, at: "/a-b.ini:2"},
	{name: "magic of the first file, included", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\ninclude=b.ini\n", "b.ini": "[uwsgi]\ninclude=%v/%N-%n.ini", "a-b.ini": "[uwsgi]\nlisten=205"}, want: 205, at: "/a-b.ini:2"},
	{name: "magic of the first file, which an include is not", args: "--include b.ini --ini a.ini",
		files: map[string]string{"b.ini": "[uwsgi]\nvacuum=1\n", "a.ini": "[uwsgi]\nini=%N-x.ini\n", "a-x.ini": "[uwsgi]\nlisten=205"}, want: 205, at: "/a-x.ini:2"},
	{name: "hostname", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nini=%d%h.ini\n", "HOSTNAME.ini": "[uwsgi]\nlisten=204"}, want: 204, at: ".ini:2"},
	{name: "environment placeholder comes too late", args: "--ini a.ini", env: "N=204",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten=$(N)\n"}, want: 0, at: "/a.ini:2"},
	{name: "option placeholder comes too late", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nset-ph=n=204\nlisten=%(n)\n"}, want: 0, at: "/a.ini:3"},
	{name: "text", args: "--ini a.ini", files: map[string]string{"a.ini": "[uwsgi]\nlisten = +204 connections\n"}, want: 204, at: "/a.ini:2"},
	{name: "no value", args: "--ini a.ini", files: map[string]string{"a.ini": "[uwsgi]\nlisten\n"}, want: 0, at: "/a.ini:2"},
	{name: "set", args: "--set listen=204", want: 204, at: "command line"},
	{name: "set, short", args: "-S listen=204", want: 204, at: "command line"},
	{name: "set in a file", args: "--ini a.ini", files: map[string]string{"a.ini": "[uwsgi]\nset = listen=204\n"}, want: 204, at: "/a.ini:2"},
	{name: "upper case is another option", args: "--ini a.ini", files: map[string]string{"a.ini": "[uwsgi]\nListen=204\n"}, want: 100, at: "default"},
	{name: "yaml", args: "--yaml a.yaml",
		files: map[string]string{"a.yaml": "other:\n  listen: 3\nuwsgi:\n  # listen: 5\n  vacuum: true\n  listen: 204 # now\n"}, want: 204, at: "/a.yaml:6"},
	{name: "yaml list and section", args: "-y a.yml:app",
		files: map[string]string{"a.yml": "uwsgi:\n  listen: 3\napp:\n  listen: [203, '204']\n"}, want: 204, at: "/a.yml:4"},
	{name: "yaml includes ini", args: "a.yml",
		files: map[string]string{"a.yml": "uwsgi:\n  ini: b.ini\n", "b.ini": "[uwsgi]\nlisten=204"}, want: 204, at: "/b.ini:2"},
	{name: "yaml beside other things", args: "--yaml a.yaml",
		files: map[string]string{"a.yaml": "other: {a: [b, {c: d}]}\nuwsgi:\n  vacuum: true\n  listen: 204\n"}, want: 204, at: "/a.yaml:4"},
	{name: "json", args: "--json a.json",
		files: map[string]string{"a.json": "{\"other\": {\"listen\": 3},\n\"uwsgi\": {\"vacuum\": true,\n\"listen\": 204}}"}, want: 204, at: "/a.json:3"},
	{name: "json string, list and section", args: "-j a.js:app",
		files: map[string]string{"a.js": "{\"app\": {\"listen\": [\"203\", 204]}}"}, want: 204, at: "/a.js:1"},
	{name: "json true", args: "--json a.json", files: map[string]string{"a.json": "{\"uwsgi\": {\"listen\": true}}"}, want: 1, at: "/a.json:1"},
	{name: "xml", args: "--xml a.xml",
		files: map[string]string{"a.xml": "<uwsgi>\n<!-- <listen>3</listen> -->\n<vacuum/>\n<listen> 204 </listen>\n</uwsgi>"}, want: 204, at: "/a.xml:4"},
	{name: "xml by id", args: "-x a.xml:two",
		files: map[string]string{"a.xml": "<conf><uwsgi id=\"one\"><listen>203</listen></uwsgi>\n<uwsgi id=\"two\"><listen>204</listen></uwsgi></conf>"}, want: 204, at: "/a.xml:2"},
	{name: "xml without an id", args: "a.xml",
		files: map[string]string{"a.xml": "<conf><uwsgi id=\"one\"><listen>203</listen></uwsgi>\n<uwsgi id=\"two\"><listen>204</listen></uwsgi></conf>"}, want: 203, at: "/a.xml:1"},
	{name: "condition before a sure one", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nif-env = HOME\nlisten = 203\nendif =\nlisten = 204\n"}, want: 204, at: "/a.ini:5"},
	{name: "condition without listen", args: "--ini a.ini",
		files: map[string]string{"a.ini": "[uwsgi]\nlisten = 204\nif-env = NONE\nvacuum = true\nend-if =\n"}, want: 204, at: "/a.ini:2"},
}

func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, strings.ReplaceAll(name, "HOSTNAME", host))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What Find says is what the kernel got from uWSGI.
func TestRealUWSGI(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "ss")
	for _, c := range forms {
		t.Run(c.name, func(t *testing.T) {
			o := testbed.Options{Address: "127.0.0.1:0", Workers: 1, Dir: write(t, c.files), Args: strings.Fields(c.args)}
			if c.env != "" {
				o.Env = []string{c.env}
			}
			if err := testbed.SetSomaxconn(1024); err != nil {
				t.Fatal(err)
			}
			u := testbed.Run(t, o)
			got, err := Find(process(t, u.Pid))
			if err != nil || got.Listen != c.want || !strings.HasSuffix(got.At, c.at) {
				t.Errorf("Find = %d at %s, %v; want %d at %s", got.Listen, got.At, err, c.want, c.at)
			}
			if _, limit, err := testbed.Queue(u.Address); err != nil || limit != c.want {
				t.Errorf("the kernel's limit is %d, %v; want %d", limit, err, c.want)
			}
			if name, ok := last(got, "http-socket"); !ok || name.Text != u.Address {
				t.Errorf("http-socket = %v, want %s", name, u.Address)
			}
		})
	}
}

// uWSGI's own --get prints an option with its placeholders filled in, threads
// (which it calculates) left out.
func TestRealOptions(t *testing.T) {
	testbed.Needs(t, "uwsgi")
	files := map[string]string{"a.ini": optionsINI, "touch": "/tmp/touch\n"}
	dir := write(t, files)
	in := input("--ini a.ini", []string{"N=8"}, map[string]string{"/srv/a.ini": optionsINI, "/srv/touch": files["touch"]})
	got, err := Find(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"master-fifo", "workers", "touch-reload", "harakiri", "max-requests"} {
		cmd := exec.Command("uwsgi", "--ini", "a.ini", "--get", name)
		cmd.Dir, cmd.Env = dir, in.Environ
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSuffix(string(out), "\n")
		if o, _ := last(got, name); o.Text != want {
			t.Errorf("%s = %q, uWSGI says %q", name, o.Text, want)
		}
	}
}

// All options that this uWSGI tells of are known here.
func TestRealNames(t *testing.T) {
	testbed.Needs(t, "uwsgi")
	out, err := exec.Command("uwsgi", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	known, n := knownOptions(), 0
	for line := range strings.Lines(string(out)) {
		for word := range strings.SplitSeq(strings.TrimSpace(line), "|") {
			word, _, _ = strings.Cut(word, " ")
			if name, ok := strings.CutPrefix(word, "--"); ok {
				if n++; !known.yes[name] && !known.no[name] {
					t.Errorf("%s is not known", name)
				}
			}
		}
	}
	if n < 500 {
		t.Errorf("uWSGI tells of %d options only:\n%s", n, out)
	}
}

// A vassal is started with its file's name alone, in the Emperor's directory.
func TestRealVassal(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi", "ss")
	const addr = "127.0.0.1:5999"
	dir := write(t, map[string]string{
		"app.ini": "[uwsgi]\nhttp-socket = " + addr + "\nmaster = true\nlisten = 111\n",
	})
	base := filepath.Join(write(t, map[string]string{"base.ini": "[uwsgi]\nlisten = 112\n"}), "base.ini")
	u := testbed.Run(t, testbed.Options{Workers: 1, Args: []string{"--emperor", dir, "--vassals-include", base}})
	end := time.Now().Add(20 * time.Second)
	for {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the vassal does not listen:\n%s", u.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, file := range glob(t, "/proc/[0-9]*/cmdline") {
		args, _ := os.ReadFile(file)
		if !strings.Contains(string(args), "\x00--ini\x00app.ini\x00") {
			continue
		}
		var pid int
		fmt.Sscanf(file, "/proc/%d/", &pid)
		if cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); cwd != dir {
			continue
		}
		got, err := Find(process(t, pid))
		_, limit, errQueue := testbed.Queue(addr)
		if err != nil || errQueue != nil || got.Listen != limit || limit != 112 || got.At != base+":2" {
			t.Errorf("Find = %d at %s, %v; the kernel's limit %d, %v; want 112 at %s", got.Listen, got.At, err, limit, errQueue, base)
		}
		return
	}
	t.Errorf("no vassal among the processes:\n%s", u.Log())
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}
