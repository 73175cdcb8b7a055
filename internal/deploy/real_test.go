package deploy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/testbed"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

func TestMain(m *testing.M) { testbed.Main(m) }

var names = []string{"uwsgi", "uwsgi-core"}

const appText = "def application(e, s):\n    s('200 OK', [])\n    return [b'']\n"

// site is an application in a folder of its own.
type site struct {
	t    *testing.T
	dir  string
	pid  int
	done chan struct{}
	at   facts.Socket
}

func newSite(t *testing.T) *site {
	dir, err := os.MkdirTemp("", "site-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &site{t: t, dir: dir}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// write writes a file; "DIR" in it is the site's folder.
func (s *site) write(name, content string) {
	s.t.Helper()
	full := s.path(name)
	err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(strings.ReplaceAll(content, "DIR", s.dir)), 0o644))
	if err != nil {
		s.t.Fatal(err)
	}
}

// sh runs a command in the site's folder.
func (s *site) sh(command string) {
	s.t.Helper()
	cmd := exec.Command("sh", "-ec", command)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// start runs a command line that becomes a uWSGI, and waits for its workers.
func (s *site) start(command string) {
	s.t.Helper()
	cmd := exec.Command("sh", "-c", "exec "+command+" >>early.log 2>&1")
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.pid, s.done = cmd.Process.Pid, make(chan struct{})
	go func() { cmd.Wait(); close(s.done) }()
	s.t.Cleanup(func() {
		syscall.Kill(-s.pid, syscall.SIGKILL)
		<-s.done
	})
	s.waitFor(func() bool { return len(s.workers()) > 0 })
	s.at = facts.Socket{Family: facts.Unix, Address: s.path("sock")}
	for range s.workers() {
		s.at.Workers = append(s.at.Workers, facts.Worker{})
	}
}

func (s *site) workers() []kernel.Process {
	found, err := kernel.Children(s.pid, names)
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

func (s *site) waitFor(done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-s.done:
			end = time.Time{}
		default:
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(s.path("early.log"))
			s.t.Fatalf("uWSGI is not there:\n%s", log)
		}
	}
}

// reload reloads by hand and waits for its end.
func (s *site) reload() {
	s.t.Helper()
	before := s.process()
	image := s.image()
	if err := syscall.Kill(s.pid, syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	s.waitFor(func() bool { return s.image() != image && len(s.workers()) > 0 })
	if s.process() != before {
		s.t.Fatal("another process")
	}
}

func (s *site) image() uint64 {
	st, err := kernel.ReadStat(s.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return st.Image
}

func (s *site) process() uwsgi.Process {
	st, err := kernel.ReadStat(s.pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return uwsgi.Process{PID: s.pid, Start: st.Start}
}

// why is why no reload is made; DIR stands for the folder, and TIME for times.
func (s *site) why(m *Memory, deploy bool) string {
	at := s.at
	at.Deploy = Look(s.process(), names, m)
	why := strings.ReplaceAll(at.WhyNoDeploy(deploy, false), s.dir, "DIR")
	return regexp.MustCompile(`\d\d:\d\d(:\d\d)?`).ReplaceAllString(why, "TIME")
}

const ini = "[uwsgi]\nplugin = python3\nmaster = true\nprocesses = 2\nsocket = DIR/sock\n"

// scene is a way to run an application, and what then happens to its files.
type scene struct {
	name  string
	files map[string]string // DIR/app.ini is ini and what stands here
	make  string            // commands before the start
	start string            // "uwsgi --ini DIR/app.ini"
	then  string            // commands, once it runs
	want  string            // why there is no reload, "" where there may be one
	// deployed is the same with deploy = true.
	deployed string
}

const never = ", which this uWSGI (since TIME) has never loaded; reload by hand"

func brings(file string) string { return "a reload would bring " + file + " of TIME" + never }

var scenes = []scene{
	{name: "nothing changed", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}},
	{name: "edited", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "echo '#' >> app.py", want: brings("DIR/app.py")},
	{name: "touched", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "touch app.py", want: brings("DIR/app.py")},
	{name: "rsync -t", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "cp app.py new; touch -d '1 year ago' new; mv new app.py", want: brings("DIR/app.py")},
	{name: "tar", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "touch -d '1 year ago' app.py; tar cf t app.py; tar xf t", want: brings("DIR/app.py")},
	{name: "a module below", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py", "shop/models.py": ""}, then: "echo '#' >> shop/models.py", want: brings("DIR/shop/models.py")},
	{name: "a new module", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "mkdir -p a/b; touch a/b/c.py", want: brings("DIR/a/b/c.py")},
	{name: "what is no source", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"},
		then: "mkdir -p __pycache__ .git node_modules/x data; touch __pycache__/x.pyc .git/x.py node_modules/x/x.py data/x.jpg shop.log db.sqlite3"},
	{name: "chdir and module", files: map[string]string{"app.ini": "chdir = DIR/srv\nmodule = shop.wsgi:application", "srv/shop/__init__.py": "", "srv/shop/wsgi.py": appText},
		then: "touch srv/shop/wsgi.py", want: brings("DIR/srv/shop/wsgi.py")},
	{name: "chdir and module, as it was", files: map[string]string{"app.ini": "chdir = DIR/srv\nmodule = shop.wsgi", "srv/shop/__init__.py": "", "srv/shop/wsgi.py": appText}},
	{name: "a package without __init__", files: map[string]string{"app.ini": "chdir = DIR/srv\nwsgi = shop.wsgi", "srv/shop/wsgi.py": appText}, then: "touch srv/other.py", want: brings("DIR/srv/other.py")},
	{name: "pythonpath", files: map[string]string{"app.ini": "pythonpath = DIR/lib\nmodule = shop", "lib/shop.py": appText}, then: "touch lib/util.py", want: brings("DIR/lib/util.py")},
	{name: "module gone", files: map[string]string{"app.ini": "pythonpath = DIR/lib\nmodule = shop", "lib/shop.py": appText}, then: "mv lib/shop.py gone",
		want: "a reload would not find what it needs: module shop (module, DIR/app.ini:7) is in none of the folders in which Python would look (DIR/lib, DIR, …); put it back first", deployed: "same"},
	{name: "submodule gone", files: map[string]string{"app.ini": "chdir = DIR\nmodule = shop.wsgi", "shop/__init__.py": "", "shop/wsgi.py": appText}, then: "mv shop/wsgi.py gone",
		want: "a reload would not find what it needs: DIR/shop/wsgi.py (module, DIR/app.ini:7): no such file or directory; put it back first", deployed: "same"},
	{name: "relative", files: map[string]string{"app.ini": "wsgi-file = app.py"}, start: "uwsgi --ini app.ini", then: "touch app.py", want: brings("DIR/app.py")},
	{name: "mounted", files: map[string]string{"app.ini": "mount = /a=DIR/a/app.py\nmount = /b=shop:application\nchdir = DIR/b", "a/app.py": appText, "b/shop.py": appText}, then: "touch b/shop.py", want: brings("DIR/b/shop.py")},
	{name: "a mounted one is gone", files: map[string]string{"app.ini": "mount = /a=DIR/a/app.py\nmount = /b=DIR/app.py", "a/app.py": appText}, then: "rm a/app.py",
		want: "a reload would not find what it needs: DIR/a/app.py (mount, DIR/app.ini:6): no such file or directory; put it back first", deployed: "same"},
	{name: "virtualenv", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nhome = DIRvenv"}, make: "python3 -m venv --without-pip DIRvenv",
		then: "mkdir $(ls -d DIRvenv/lib/python3*/site-packages)/django-9.dist-info", want: brings("DIRvenv/lib/python3.11/site-packages/django-9.dist-info")},
	{name: "virtualenv gone", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nhome = DIRvenv"}, make: "python3 -m venv --without-pip DIRvenv", then: "rm -r DIRvenv",
		want: "a reload would not find what it needs: DIRvenv (home, DIR/app.ini:7): no such file or directory; put it back first", deployed: "same"},
	{name: "the file is gone", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "rm app.py",
		want: "a reload would not find what it needs: DIR/app.py (wsgi-file, DIR/app.ini:6): no such file or directory; put it back first", deployed: "same"},
	{name: "current -> releases/2", files: map[string]string{"app.ini": "chdir = DIR/current\nmodule = shop", "releases/1/shop.py": appText, "releases/2/shop.py": appText},
		make: "ln -s releases/1 current", then: "ln -sfn releases/2 current", want: brings("DIR/current")},
	{name: "current -> releases/2, without chdir", files: map[string]string{"app.ini": "wsgi-file = DIR/current/shop.py", "releases/1/shop.py": appText, "releases/2/shop.py": appText},
		make: "ln -s DIR/releases/1 current", then: "ln -sfn DIR/releases/2 next; mv -T next current", want: brings("DIR/current")},
	{name: "folders change places", files: map[string]string{"app.ini": "wsgi-file = DIR/srv/shop/app.py", "srv/shop/app.py": appText, "srv/new/app.py": appText},
		then: "mv srv/shop srv/old; mv srv/new srv/shop", want: brings("DIR/srv/shop")},
	{name: "folders change places, and the new one changes", files: map[string]string{"app.ini": "chdir = DIR/srv/shop\nmodule = app", "srv/shop/app.py": appText, "srv/new/app.py": appText},
		then: "mv srv/shop srv/old; mv srv/new srv/shop; touch srv/shop/log", want: brings("DIR/srv/shop")},
	{name: "git checkout", files: map[string]string{"app.ini": "wsgi-file = DIR/repo/app.py", "repo/app.py": appText},
		make: "cd repo; git init -q .; git add .; git -c user.name=a -c user.email=a@b commit -qm 1; echo '#2' >> app.py; git -c user.name=a -c user.email=a@b commit -qam 2; git checkout -q HEAD~1",
		then: "cd repo; git checkout -q -", want: brings("DIR/repo/app.py")},
	{name: "a module below is gone", files: map[string]string{"app.ini": "chdir = DIR\nmodule = shop.wsgi", "shop/__init__.py": "", "shop/wsgi.py": "import shop.models\n" + appText, "shop/models.py": ""},
		then: "rm shop/models.py", want: "a reload would not find DIR/shop/models.py, which is gone, at TIME or before (this uWSGI runs since TIME); reload by hand"},
	{name: "one went long ago", files: map[string]string{"app.ini": "chdir = DIR\nmodule = shop", "shop.py": appText}, make: "mkdir -p lib/__pycache__; touch lib/__pycache__/old.cpython-311.pyc lib/x.py"},
	{name: "a mount namespace", files: map[string]string{"app.ini": "wsgi-file = DIR/srv/app.py", "real/app.py": appText, "srv/app.py": "broken("},
		start: "unshare -m --propagation private sh -c 'mount --bind DIR/real DIR/srv; exec uwsgi --ini DIR/app.ini'", then: "touch srv/app.py; sleep 2.1"},
	{name: "a mount namespace, and a deploy in it", files: map[string]string{"app.ini": "wsgi-file = DIR/srv/app.py", "real/app.py": appText, "srv/app.py": "broken("},
		start: "unshare -m --propagation private sh -c 'mount --bind DIR/real DIR/srv; exec uwsgi --ini DIR/app.ini'", then: "touch real/app.py", want: brings("DIR/srv/app.py")},
	{name: "it may not read its file any more", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nuid = nobody\ngid = nogroup"}, make: "chmod 777 .", then: "chmod 600 app.py",
		want: "a reload would not find what it needs: DIR/app.py (wsgi-file, DIR/app.ini:6): user 65534, as which it runs, may not: permission denied; put it back first", deployed: "same"},
	{name: "perl", files: map[string]string{"app.ini": "psgi = DIR/p/app.psgi", "p/app.psgi": ""}, then: "touch p/Shop.pm", want: brings("DIR/p/Shop.pm")},
	{name: "ruby", files: map[string]string{"app.ini": "rack = DIR/config.ru", "config.ru": ""}, then: "mkdir lib; touch lib/a.rb", want: brings("DIR/lib/a.rb")},
	{name: "java", files: map[string]string{"app.ini": "jvm-main-class = Shop"},
		want: "what a reload would load is not known: an application by jvm-main-class (DIR/app.ini:6) is of a kind whose files are not known here; reload by hand", deployed: "same"},
	{name: "php", files: map[string]string{"app.ini": "php-docroot = DIR/www", "www/index.php": ""}, then: "touch www/index.php"},
	{name: "an mtime of the future", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, make: "touch -d '+1 year' app.py"},
	{name: "the ini is younger", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "echo 'harakiri = 30' >> app.ini", want: brings("DIR/app.ini")},
	{name: "an included file is younger", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nini = DIR/common.ini", "common.ini": "[uwsgi]\nneed-app = true\n"}, then: "touch common.ini", want: brings("DIR/common.ini")},
	{name: "another port", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "sed -i s,DIR/sock,DIR/other, app.ini",
		want: "a reload would make it another: its configuration now has no socket DIR/sock; reload by hand", deployed: "same"},
	{name: "another protocol", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "sed -i s,^socket,http-socket, app.ini",
		want: "a reload would make it another: its configuration now has http-socket = DIR/sock, and was started with socket; reload by hand", deployed: "same"},
	{name: "more processes", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, then: "sed -i 's,^processes.*,processes = 3,' app.ini",
		want: "a reload would make it another: its configuration now has 3 processes, and was started with 2; reload by hand", deployed: "same"},
	{name: "no application is named", files: map[string]string{"app.ini": ""},
		want: "what a reload would load is not known: its configuration names no application (wsgi-file, module, mount, …); reload by hand", deployed: "same"},
	{name: "a kind that is not known", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nif-env = HOME\nchdir = DIR\nend-if ="},
		want: "what a reload would load is not known: chdir (DIR/app.ini:8) stands in a condition or a loop, which is not evaluated; reload by hand", deployed: "same"},

	{name: "an upgrade", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, make: "cp $(readlink -f $(command -v uwsgi)) uwsgi", start: "DIR/uwsgi --ini DIR/app.ini",
		then: "cp uwsgi new; mv new uwsgi", want: brings("DIR/uwsgi")},
	{name: "the program is gone", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, make: "cp $(readlink -f $(command -v uwsgi)) uwsgi", start: "DIR/uwsgi --ini DIR/app.ini",
		then: "rm uwsgi", want: "a reload would not find its program: DIR/uwsgi leads to nothing that it may execute; put it back first", deployed: "same"},
	{name: "exec -a", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py"}, start: "bash -c 'exec -a uwsgi-shop uwsgi --ini DIR/app.ini'",
		want: "a reload would not find its program: uwsgi-shop leads to nothing that it may execute; put it back first", deployed: "same"},
	{name: "another PATH", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nenv = PATH=DIR/bin"}, start: "uwsgi --ini DIR/app.ini",
		want: "a reload would not find its program: uwsgi leads to nothing that it may execute; put it back first", deployed: "same"},
	{name: "another program along PATH", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nenv = PATH=DIR/bin:$(PATH)"}, make: "mkdir bin; cp $(readlink -f $(command -v uwsgi)) bin/uwsgi",
		start: "uwsgi --ini DIR/app.ini", want: "a reload would execute DIR/bin/uwsgi, and /usr/bin/uwsgi-core is what runs; start it anew by hand", deployed: "same"},
	{name: "a PATH that holds it too", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nenv = PATH=DIR/bin:$(PATH)"}, start: "uwsgi --ini DIR/app.ini"},
	{name: "a PATH in an envdir", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nenvdir = DIR/env", "env/PATH": "DIR/bin\n"}, start: "uwsgi --ini DIR/app.ini",
		want: "a reload would not find its program: uwsgi leads to nothing that it may execute; put it back first", deployed: "same"},
	{name: "an envdir somewhere", files: map[string]string{"app.ini": "wsgi-file = DIR/app.py\nenvdir = env", "env/TZ": "UTC\n"}, start: "uwsgi --ini DIR/app.ini",
		want: "what a reload would execute is not known: whether envdir (DIR/app.ini:7) sets PATH is not known; reload by hand", deployed: "same"},
}

// What a reload of a real uWSGI would bring after what people do to its files.
func TestScenes(t *testing.T) {
	testbed.Needs(t, "uwsgi")
	sites := make([]*site, len(scenes))
	memories := make([]Memory, len(scenes))
	var last time.Time
	for i, c := range scenes {
		s := newSite(t)
		t.Cleanup(func() { os.RemoveAll(s.dir + "venv") })
		sites[i] = s
		s.write("app.py", appText)
		for name, content := range c.files {
			if name == "app.ini" {
				content = ini + content + "\n"
			}
			s.write(name, content)
		}
		if c.make != "" {
			s.sh(strings.ReplaceAll(c.make, "DIR", s.dir))
		}
		if c.start == "" {
			c.start = "uwsgi --ini DIR/app.ini"
		}
		s.start(strings.ReplaceAll(c.start, "DIR", s.dir))
		s.why(&memories[i], false) // it remembers what the configuration said
		last = time.Now()
	}
	time.Sleep(time.Until(last.Add(2100 * time.Millisecond))) // what follows is younger
	for i, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			s := sites[i]
			s.t = t
			if c.then != "" {
				s.sh(strings.ReplaceAll(c.then, "DIR", s.dir))
			}
			if got := s.why(&memories[i], false); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			want := c.deployed
			if want == "same" {
				want = c.want
			}
			if got := s.why(&memories[i], true); got != want {
				t.Errorf("with deploy: got  %q\nwant %q", got, want)
			}
		})
	}
}
