package uwsgiconf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// input is a uWSGI that runs in /srv over these files.
func input(args string, env []string, files map[string]string) Input {
	return Input{
		Args: append([]string{"uwsgi"}, strings.Fields(args)...), Environ: append([]string{"HOME=/root"}, env...),
		Dirs: []string{"/srv"}, Hostname: "web1",
		Read: func(path string) ([]byte, error) {
			text, ok := files[filepath.Clean(path)]
			if !ok {
				return nil, fs.ErrNotExist
			}
			return []byte(text), nil
		},
	}
}

// The forms that real uWSGI was tried with, without it.
func TestForms(t *testing.T) {
	for _, c := range forms {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			for name, text := range c.files {
				files["/srv/"+strings.ReplaceAll(name, "HOSTNAME", "web1")] = text
			}
			got, err := Find(input(c.args, []string{c.env}, files))
			if err != nil || got.Listen != c.want || !strings.HasSuffix(got.At, c.at) {
				t.Errorf("Find = %d at %s, %v; want %d at %s", got.Listen, got.At, err, c.want, c.at)
			}
		})
	}
}

// What cannot be known is said, and is forgotten where a sure listen follows.
func TestDoubts(t *testing.T) {
	const sure = "\nlisten = 50\n"
	for _, c := range []struct {
		name, args, ini, want string
	}{
		{"condition", "--ini a.ini", "if-env = X\nlisten = 204\nend =\n", "/srv/a.ini:3: listen stands in a condition or a loop, which is not evaluated"},
		{"loop", "--ini a.ini", "for = 1 2\nlisten = 20%(_)\nendfor =\n", "/srv/a.ini:3: listen stands in a condition or a loop, which is not evaluated"},
		{"included under a condition", "--ini a.ini", "if-file = x\nini = :more\n[more]\nlisten = 7\n[uwsgi]\nend =\n", "/srv/a.ini:5: listen stands in a condition or a loop, which is not evaluated"},
		{"missing file", "--ini a.ini", "include = b.ini\n", "/srv/a.ini:2: reading the file that include names: file does not exist"},
		{"not a file", "--ini a.ini", "ini = http://conf/x.ini\n", "/srv/a.ini:2: the file that ini names is no file, and not followed"},
		{"standard input", "--ini a.ini", "ini = -\n", "/srv/a.ini:2: the file that ini names is no file, and not followed"},
		{"number of CPUs", "--ini a.ini", "listen = %k00\n", "/srv/a.ini:2: listen holds a placeholder that is not known here"},
		{"negative", "--ini a.ini", "listen = -1\n", "/srv/a.ini:2: listen is no number that uWSGI takes"},
		{"too big", "--ini a.ini", "listen = 99999999999\n", "/srv/a.ini:2: listen is no number that uWSGI takes"},
		{"custom option", "--ini a.ini", "declare-option = q=vacuum=1;listen=$1\nq = 3\n", "/srv/a.ini:3: a custom option (declare-option) sets listen"},
		{"injection", "--ini a.ini", "inject-before = c\n", "/srv/a.ini:2: inject-before is not followed"},
		{"includes itself", "--ini a.ini", "ini = a.ini\n", "/srv/a.ini:2: too many files include each other at the file that ini names"},
		{"custom options in a circle", "--ini a.ini", "declare-option = p=p=$1\np = 3\n", "/srv/a.ini:3: custom options (declare-option) stand for each other"},
		{"data base", "--ini a.ini", "sqlite3 = x.db\n", "/srv/a.ini:2: sqlite3 is not followed"},
		{"no option of uWSGI's", "--ours --exit-on-reload --ini a.ini", "", "command line: --ours is no option that is known here: whether what follows is its value cannot be told"},
		{"the beginning of several", "--socke x --ini a.ini", "", "command line: --socke is no option that is known here"},
		{"with a value in some versions", "--ssl-option 1 --ini a.ini", "", "command line: --ssl-option is no option that is known here"},
		{"anchors", "--yaml anchor.yaml --ini a.ini", "", "command line: anchor.yaml cannot be understood as YAML"},
		{"lua", "--include a.lua --ini a.ini", "", "command line: a.lua is not followed: it does not end as a configuration file does"},
		{"bad json", "--json bad.json --ini a.ini", "", "command line: bad.json cannot be understood as JSON: its text is not well formed, nested too deep, or written in a way that is not followed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"/srv/a.ini": "[uwsgi]\n" + c.ini, "/srv/bad.json": `{"uwsgi": {`, "/srv/anchor.yaml": "uwsgi:\n  listen: &a 4\n"}
			_, err := Find(input(c.args, nil, files))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("err = %v\nwant  %s", err, c.want)
			}
			files["/srv/last.ini"] = "[uwsgi]" + sure
			if got, err := Find(input(c.args+" --ini last.ini", nil, files)); err != nil || got.Listen != 50 {
				t.Errorf("with a sure listen behind: %d, %v", got.Listen, err)
			}
		})
	}
}

// The configuration of paste.deploy has a section for uWSGI.
func TestPaste(t *testing.T) {
	for _, option := range []string{"ini-paste", "ini-paste-logged", "pypy-ini-paste"} {
		got, err := Find(input("--"+option+" a.ini", nil, map[string]string{"/srv/a.ini": "[app:main]\nuse = egg:x\n[uwsgi]\nlisten = 7\n"}))
		if err != nil || got.Listen != 7 {
			t.Errorf("%s: %d, %v", option, got.Listen, err)
		}
	}
}

// What uWSGI calculates is not known, nor is what comes of it.
func TestCalculated(t *testing.T) {
	for text, want := range map[string]string{
		"%(a + 1)": "what %(…) calculates in it is not known here",
		"%(a 1)":   "what %(…) calculates in it is not known here",
		"%(b)":     "what %(…) calculates in it is not known here",
		"%k":       "it holds a placeholder that is not known here",
		"%(a)":     "",
	} {
		ini := "[uwsgi]\nset-ph = a=1\nb = %(a - 1)\nc = " + text + "\ninherit = " + text + ".ini\n"
		got, err := Find(input("--ini a.ini", nil, map[string]string{"/srv/a.ini": ini, "/srv/1.ini": "[uwsgi]\nlisten = 7\n"}))
		if o, _ := last(got, "c"); o.Unknown != want {
			t.Errorf("%s is unknown: %q, want %q", text, o.Unknown, want)
		}
		if (err == nil) != (want == "") || err != nil && !strings.HasSuffix(err.Error(), ": inherit is not followed: "+want) {
			t.Errorf("inherit = %s.ini: %v", text, err)
		}
	}
}

// auto-procname overwrites arguments and environment: the default is a guess then.
func TestOverwritten(t *testing.T) {
	for _, in := range []Input{
		{Args: []string{"uWSGI master"}, Environ: []string{"     "}},
		{Args: []string{"uwsgi", "--master"}},
		{},
	} {
		if got, err := Find(in); err == nil {
			t.Errorf("Find(%q) = %d, nil; want an error", in.Args, got.Listen)
		}
	}
}

// A uWSGI with chdir is no longer where its relative file is.
func TestStartDirectory(t *testing.T) {
	in := input("--ini conf/a.ini", nil, map[string]string{
		"/home/app/conf/a.ini": "[uwsgi]\nini = conf/b.ini\n", "/home/app/conf/b.ini": "[uwsgi]\nlisten = 9\n", "/srv/conf/b.ini": "[uwsgi]\nlisten = 8\n",
	})
	in.Dirs = []string{"/srv", "/home/app"}
	got, err := Find(in)
	if err != nil || got.Listen != 9 {
		t.Errorf("Find = %d, %v; want 9", got.Listen, err)
	}
}

// Two files of one relative name: which of them uWSGI has read is not known.
func TestTwoStartDirectories(t *testing.T) {
	files := map[string]string{"/srv/a.ini": "[uwsgi]\nlisten = 9\n", "/home/app/a.ini": "[uwsgi]\nlisten = 9\n"}
	in := input("--ini a.ini", nil, files)
	in.Dirs = []string{"/srv", "/home/app"}
	if got, err := Find(in); err != nil || got.Listen != 9 || got.At != "/srv/a.ini:2" {
		t.Errorf("the same: Find = %+v, %v", got, err)
	}
	files["/home/app/a.ini"] = "[uwsgi]\nlisten = 8\n"
	if got, err := Find(in); err == nil || !strings.Contains(err.Error(), "two of that name that differ") {
		t.Errorf("Find = %+v, %v", got, err)
	}
	files["/home/app/a.ini"] = ""
	read := in.Read
	in.Read = func(path string) ([]byte, error) {
		if path == "/srv/a.ini" {
			return nil, fs.ErrPermission // it may be there, or not
		}
		return read(path)
	}
	if got, err := Find(in); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Find = %+v, %v", got, err)
	}
}

// What stands in the files of a process is not told to others, whichever way it
// comes into a message.
func TestNoValues(t *testing.T) {
	const secret = "s3cret"
	for _, ini := range []string{
		"inherit = @(/secret)", "inherit = $(SECRET).ini", "ini = s3cret.ini", "include = s3cret", "config = s3cret", "json = http://s3cret/x.json",
		"listen = -1s3cret", "exit-on-reload = %(s3cret + 1)", "set = x=s3cret\ninherit = %(x)\n", "declare-option = s3cret=listen=$1\ns3cret = 1",
		"if-env = s3cret\nlisten = s3cret\nendif =", "for = s3cret\nini = s3cret.ini\nendfor =", "yaml = bad.yaml", "json = bad.json", "xml = bad.xml", "inject-before = s3cret",
	} {
		in := input("--ini a.ini", []string{"SECRET=" + secret}, map[string]string{
			"/srv/a.ini": "[uwsgi]\n" + ini + "\n", "/secret": secret,
			"/srv/bad.yaml": "s3cret: [s3cret", "/srv/bad.json": "{\"s3cret\": s3cret", "/srv/bad.xml": "<s3cret></s3crets>",
		})
		got, err := Find(in)
		said := fmt.Sprint(err, got.Unread, got.At)
		for _, o := range got.Options {
			said += o.At + o.Unknown
		}
		if strings.Contains(said, secret) {
			t.Errorf("%s: %s", ini, said)
		}
	}
}

// What is read and made is bounded as a whole, not each piece of it.
func TestBounds(t *testing.T) {
	for name, ini := range map[string]string{
		"magic":  strings.Repeat("b = "+strings.Repeat("%p", 500)+"\n", 900),
		"doubly": "a = " + strings.Repeat("x", 4000) + "\n" + strings.Repeat("b = %%(a)%%(a)%%(a)\n", 9000),
		"files":  strings.Repeat("ini = /big.ini\n", 100),
	} {
		long := "/" + strings.Repeat("d/", 1500) + "a.ini"
		in := input("--ini "+long, nil, map[string]string{long: "[uwsgi]\n" + ini, "/big.ini": strings.Repeat("#", 1<<20)})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := Find(in)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; got.Unread == nil || used > 400<<20 {
			t.Errorf("%s: %d MiB, unread %v, %v", name, used>>20, got.Unread, err)
		}
	}
}

func TestReadError(t *testing.T) {
	in := input("--ini /etc/a.ini", nil, nil)
	in.Read = func(string) ([]byte, error) { return nil, fs.ErrPermission }
	if _, err := Find(in); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("err = %v; want it to be %v", err, fs.ErrPermission)
	}
}

const optionsINI = `[uwsgi]
set-ph = run=/run/%n
master-fifo = %(run).fifo
workers = $(N)
threads = %(workers + 2 * 3 1)
touch-reload = @(touch)
harakiri = $(NONE)
max-requests = %(nothing)%(
if-env = Y
exit-on-reload = true
end =
listen = $(N)
`

// last is the option of one of these names that wins, conditional ones left out.
func last(s Setting, names ...string) (Option, bool) {
	for i := len(s.Options) - 1; i >= 0; i-- {
		for _, name := range names {
			if o := s.Options[i]; o.Name == name && !o.Conditional {
				return o, true
			}
		}
	}
	return Option{}, false
}

func TestOptions(t *testing.T) {
	got, err := Find(input("--ini a.ini -p 4 --stats=:9191", []string{"UWSGI_HARAKIRI=20", "N=8", "UWSGI_RELOADS=3"},
		map[string]string{"/srv/a.ini": optionsINI, "/srv/touch": "/tmp/touch\n"}))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, name := range []string{"master-fifo", "threads", "touch-reload", "harakiri", "max-requests", "exit-on-reload", "stats", "run"} {
		o, ok := last(got, name)
		if ok {
			found[name] = o.Text + " at " + o.At
		}
		if (o.Unknown != "") != (name == "threads") {
			t.Errorf("%s = %s is unknown: %q", name, o.Text, o.Unknown)
		}
	}
	if o, ok := last(got, "processes", "workers"); ok {
		found["workers"] = o.Text + " at " + o.At
	}
	want := map[string]string{
		"master-fifo":  "/run/a.fifo at /srv/a.ini:3",
		"workers":      "4 at command line",
		"threads":      "%(workers + 2 * 3 1) at /srv/a.ini:5",
		"touch-reload": "/tmp/touch at /srv/a.ini:6",
		"harakiri":     "$(NONE) at /srv/a.ini:7",
		"max-requests": "%(nothing)%( at /srv/a.ini:8",
		"stats":        ":9191 at command line",
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
}

// Whatever stands in the files, Find ends, and says where it has its answer from.
func FuzzFind(f *testing.F) {
	for _, c := range forms {
		for name, text := range c.files {
			f.Add(name, text, c.args)
		}
	}
	f.Add("a.ini", "[uwsgi]\na=%(a)%(a)\nb=@(a.ini)\nini=:uwsgi\n", "a.ini")
	f.Fuzz(func(t *testing.T, name, text, args string) {
		files := map[string]string{}
		for _, ext := range []string{"ini", "yml", "json", "xml"} {
			files["/srv/a."+ext] = text
		}
		maps.Copy(files, map[string]string{"/srv/" + name: text})
		for _, args := range []string{args, "a.ini", "a.yml", "a.json", "a.xml"} {
			got, err := Find(input(args, nil, files))
			if got.Listen < 0 || got.At == "" || (err == nil && got.At == "default" && got.Listen != defaultListen) {
				t.Errorf("Find = %+v, %v", got, err)
			}
		}
	})
}
