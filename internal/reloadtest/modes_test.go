//go:build reloadtest

package reloadtest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"qwatch/internal/testbed"
)

// mode is a way to run uWSGI, and what becomes of a reload there.
type mode struct {
	name    string            // the row's
	says    string            // what makes it this mode, for the table
	address string            // where the clients come; "": shop's
	queue   string            // the socket that overflows; "": address, "*": all
	files   map[string]string // below /srv
	before  string            // a shell script, before anything starts
	start   []string          // commands that stay
	deploy  string            // a shell script, when the applications have run for some seconds
	late    bool              // qwatch starts after the deploy
	policy  string            // lines of [policy.reload]
	stop    string            // a shell script that ends what the scene has started in a container
	others  []string          // addresses of the neighbours, which nothing may happen to
	masters int               // how many hold the socket; 0: 1
	want    want
	quick   bool // not with FULL alone
	systemd bool // in a container
	repeat  bool // ten times with FULL
}

const (
	shop = "127.0.0.1:5000"
	blog = "127.0.0.1:5002"
)

// shopINI is the file that most modes start with.
const shopINI = "shop/shop.ini"

// ini is a uWSGI's configuration as people write it; each line sets an
// option in the place of what is there, or takes it out where it has no value.
func ini(name string, lines ...string) string {
	addr := map[string]string{"shop": shop, "blog": blog}[name]
	all := []string{
		"plugin = python3",
		"http-socket = " + addr,
		"chdir = /srv/" + name,
		"wsgi-file = app.py",
		"master = true",
		"processes = 2",
		"listen = 128",
		"uid = www-data",
		"gid = www-data",
		"vacuum = true",
		"logto = /srv/log/" + name + ".log",
	}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, " =")
		all = slices.DeleteFunc(all, func(have string) bool { return strings.HasPrefix(have, key+" = ") })
		if value != "" { // "KEY =" alone takes the option out
			all = append(all, line)
		}
	}
	return "[uwsgi]\n" + strings.Join(all, "\n") + "\n"
}

// with is the mode of a shop that has some lines more.
func with(name string, w want, lines ...string) mode {
	var says []string
	for _, line := range lines {
		if key, value, _ := strings.Cut(line, " ="); value != "" && key != "plugin" && key != "pidfile" {
			says = append(says, "`"+line+"`")
		}
	}
	return mode{name: name, says: strings.Join(says, ", "), files: map[string]string{shopINI: ini("shop", lines...)}, want: w}
}

// everything is each mode once, with what need not be said filled in.
func everything() []mode {
	all := slices.Concat(inOne(), several(), chosen(), units(), goodDeploys(), deploys())
	for i := range all {
		m := &all[i]
		m.address = or(m.address, shop)
		m.queue = or(m.queue, m.address)
		if m.queue == "*" {
			m.queue = ""
		}
		if m.start == nil && !m.systemd {
			m.start = []string{"uwsgi --ini /srv/" + shopINI}
		}
		if m.masters == 0 {
			m.masters = 1
		}
		files := map[string]string{"shop/app.py": testbed.SleepApp, "blog/app.py": testbed.SleepApp}
		for name, text := range m.files {
			files[name] = text
		}
		m.files = files
	}
	return all
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// rounds is how often the mode is played: with FULL, a broken deploy ten times,
// or as often as ROUNDS says.
func (m mode) rounds() int {
	if !m.repeat || !full {
		return 1
	}
	n, err := strconv.Atoi(or(os.Getenv("ROUNDS"), "10"))
	if err != nil {
		panic(err)
	}
	return n
}

// as by, the usual one: a reload that keeps the slow request, and that nobody
// outwaits.
func by(way string) want { return want{way: way, slow: kept} }

func refused(words string) want { return want{refused: words, slow: kept} }

// swiftly is by, where others are served meanwhile.
func swiftly(way string, longest time.Duration) want {
	return want{way: way, slow: kept, longest: longest}
}

// asyncApp is testbed's app for an --async loop: others are served while one
// waits, if for whole seconds.
const asyncApp = `import time
import uwsgi

def application(environ, start_response):
    ms = int(environ["QUERY_STRING"][3:])
    if ms < 1000:
        time.sleep(ms / 1000)
    else:
        uwsgi.async_sleep(ms // 1000)
        uwsgi.suspend()
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
`

// inOne are the modes of one uWSGI, as qwatch itself chooses the way.
func inOne() []mode {
	quick := func(m mode) mode { m.quick = true; return m }
	ugreen := with("async", want{way: "hup", slow: cut}, "plugin = python3,ugreen", "ugreen = true", "async = 20")
	ugreen.files["shop/app.py"] = asyncApp
	return []mode{
		quick(with("plain", by("hup"))),
		{
			name: "plain, by its command line",
			start: []string{"uwsgi --plugin python3 --http-socket " + shop + " --chdir /srv/shop --module app --master --workers 2" +
				" --listen 128 --uid www-data --gid www-data --logto /srv/log/shop.log"},
			want: by("hup"),
		},
		quick(with("lazy", swiftly("hup", 4*time.Second), "lazy = true")),
		with("lazy-apps", by("hup"), "lazy-apps = true"),
		with("threads", by("hup"), "threads = 4"),
		quick(with("chain", swiftly("chain", 2*time.Second), "lazy-apps = true", "master-fifo = /srv/run/shop.fifo")),
		with("cheaper", want{way: "hup", slow: kept, fewer: true}, "processes = 4", "cheaper = 1"),
		with("cheaper and busyness", want{way: "hup", slow: kept, fewer: true}, "plugin = python3,cheaper_busyness", "processes = 6", "cheaper = 2", "cheaper-algo = busyness", "cheaper-overload = 5"),
		with("max-requests", by("hup"), "max-requests = 300"),
		with("harakiri", want{way: "hup", slow: cut}, "harakiri = 10"),
		quick(with("mercy 4 s", want{way: "hup", slow: cut}, "worker-reload-mercy = 4", "reload-mercy = 4")),
		with("mules, spooler, daemon", by("hup"), "mule = true", "spooler = /srv/run", "attach-daemon = sleep 1000"),
		with("reuse-port", by("hup"), "reuse-port = true"),
		quick(mode{
			name: "http", says: "`http = " + shop + "`", queue: "*",
			files: map[string]string{shopINI: ini("shop", "plugin = python3,http", "http-socket =", "http = "+shop)},
			want:  refused("router"),
		}),
		{
			name: "UNIX", says: "`http-socket = /srv/run/shop.sock`", address: "/srv/run/shop.sock",
			files: map[string]string{shopINI: ini("shop", "http-socket = /srv/run/shop.sock")},
			want:  by("hup"),
		},
		ugreen,
		with("daemonize", by("hup"), "daemonize = /srv/log/shop.log", "logto =", "pidfile = /srv/run/shop.pid"),
		with("exit-on-reload", refused("exit-on-reload"), "exit-on-reload = true"),
		{
			name:  "no master",
			start: []string{"uwsgi --plugin python3 --http-socket " + shop + " --wsgi-file /srv/shop/app.py --processes 2 --listen 128 --logto /srv/log/shop.log"},
			want:  refused("without a master"),
		},
	}
}

// several are modes of more than one uWSGI.
func several() []mode {
	vassals := map[string]string{"vassals/shop.ini": ini("shop"), "vassals/blog.ini": ini("blog")}
	tyrant := map[string]string{"vassals/shop.ini": ini("shop", "uid =", "gid ="), "vassals/blog.ini": ini("blog", "uid =", "gid =")}
	onDemand := map[string]string{
		"vassals/shop.ini": ini("shop", "http-socket = fd://0"), "vassals/shop.ini.socket": shop, "vassals/blog.ini": ini("blog"),
	}
	subscriber := ini("shop", "http-socket =", "socket = 127.0.0.1:5001", "subscribe-to = 127.0.0.1:5700:testbed")
	pool := func(name string) string {
		return ini(name, "http-socket =", "listen =", "protocol = http", "zerg = /srv/run/pool.sock")
	}
	return []mode{
		{
			name: "emperor", files: vassals, start: []string{"uwsgi --emperor /srv/vassals --logto /srv/log/emperor.log"},
			others: []string{blog}, want: by("hup"), quick: true,
		},
		{
			name: "tyrant", says: "`emperor-tyrant`", files: tyrant, before: "chown www-data:www-data vassals/*",
			start:  []string{"uwsgi --emperor /srv/vassals --emperor-tyrant --logto /srv/log/emperor.log"},
			others: []string{blog}, want: by("hup"),
		},
		{
			name: "emperor, on demand", says: "the emperor holds the socket", files: onDemand,
			start:  []string{"uwsgi --emperor /srv/vassals --emperor-on-demand-extension .socket --listen 128 --logto /srv/log/emperor.log"},
			others: []string{blog}, masters: 2, want: by("hup"),
		},
		{
			name: "subscribe-to", says: "a router of its own before it", queue: "127.0.0.1:5001",
			files: map[string]string{
				shopINI:      subscriber,
				"router.ini": "[uwsgi]\nplugin = http\nmaster = true\nlisten = 128\nhttp = " + shop + "\nhttp-subscription-server = 127.0.0.1:5700\nlogto = /srv/log/router.log\n",
			},
			start:  []string{"uwsgi --ini /srv/router.ini", "uwsgi --ini /srv/" + shopINI},
			others: []string{shop}, want: by("hup"),
		},
		{
			name: "zerg", says: "two in a pool",
			files: map[string]string{
				"pool.ini": "[uwsgi]\nplugin = zergpool\nmaster = true\nlisten = 128\nuid = www-data\ngid = www-data\nzergpool = /srv/run/pool.sock:" + shop + "\nlogto = /srv/log/pool.log\n",
				shopINI:    pool("shop"), "blog/blog.ini": pool("blog"),
			},
			start: []string{"uwsgi --ini /srv/pool.ini", "sh -c 'sleep 1; exec uwsgi --ini /srv/shop/shop.ini'", "sh -c 'sleep 1; exec uwsgi --ini /srv/blog/blog.ini'"},
			want:  refused("not the only one that holds the socket"),
		},
	}
}

// chosen are the ways that an administrator asks for.
func chosen() []mode {
	const file = "/srv/shop/reload"
	touch := func(option string, w want) mode {
		m := with(option, w, option+" = "+file)
		m.before = "touch " + file
		m.policy = `how = "touch:` + file + `"`
		return m
	}
	first := touch("touch-reload", by("touch:"+file))
	first.quick = true
	chain := touch("touch-chain-reload", swiftly("touch:"+file, 2*time.Second))
	chain.files[shopINI] = ini("shop", "lazy-apps = true", "touch-chain-reload = "+file)
	other := touch("touch, of another", refused("watch"))
	other.says = "`how = touch:" + file + "`, which is blog's touch-reload"
	other.files = map[string]string{shopINI: ini("shop"), "blog/blog.ini": ini("blog", "touch-reload = "+file)}
	other.start = []string{"uwsgi --ini /srv/shop/shop.ini", "uwsgi --ini /srv/blog/blog.ini"}
	other.others = []string{blog}
	fifo := with("fifo", by("fifo:/srv/run/shop.fifo"), "master-fifo = /srv/run/shop.fifo")
	fifo.policy = `how = "fifo:/srv/run/shop.fifo"`
	return []mode{first, touch("touch-workers-reload", swiftly("touch:"+file, 4*time.Second)), chain, other, fifo}
}

// unit is a systemd service.
func unit(lines ...string) string {
	return "[Service]\n" + strings.Join(lines, "\n") + "\n"
}

const (
	start  = "ExecStart=/usr/bin/uwsgi --ini /srv/shop/shop.ini"
	reload = "ExecReload=/bin/kill -HUP $MAINPID"
)

// service is a mode of one unit, shop.service.
func service(name string, w want, files map[string]string, lines ...string) mode {
	all := map[string]string{shopINI: ini("shop"), "/etc/systemd/system/shop.service": unit(lines...)}
	for file, text := range files {
		all[file] = text
	}
	return mode{
		name: name, files: all, systemd: true, want: w,
		before: "systemctl daemon-reload; systemctl start shop", stop: "systemctl kill -s KILL shop; systemctl stop shop; rm /etc/systemd/system/shop.service; systemctl daemon-reload",
	}
}

// units are the modes of a booted systemd.
func units() []mode {
	const ours = "systemd:shop.service"
	run := func(name string) string {
		return fmt.Sprintf("#!/bin/sh\nexec /usr/bin/uwsgi --ini /srv/%s/%s.ini\n", name, name)
	}
	program := func(name string) string {
		return fmt.Sprintf("[program:%s]\ncommand=/usr/bin/uwsgi --ini /srv/%s/%s.ini --die-on-term\nautostart=true\nautorestart=true\n", name, name, name)
	}
	vassals := map[string]string{"vassals/shop.ini": ini("shop"), "vassals/blog.ini": ini("blog")}
	emperor := "ExecStart=/usr/bin/uwsgi --emperor /srv/vassals --logto /srv/log/emperor.log"
	beside := func(m mode) mode { m.others = []string{blog}; return m }
	debian := func(addr string) string {
		return "[uwsgi]\nplugin = python3\nhttp-socket = " + addr + "\nchdir = /srv/shop\nmodule = app\nlisten = 128\n"
	}
	supervisor := mode{
		name: "supervisor", says: "two programs", systemd: true, quick: true,
		files: map[string]string{
			shopINI: ini("shop"), "blog/blog.ini": ini("blog"),
			"/etc/supervisor/conf.d/shop.conf": program("shop"), "/etc/supervisor/conf.d/blog.conf": program("blog"),
		},
		before: "systemctl restart supervisor", stop: "supervisorctl stop all; rm /etc/supervisor/conf.d/*; systemctl stop supervisor",
		others: []string{blog}, want: by("hup"),
	}
	byChoice := supervisor
	byChoice.name, byChoice.says, byChoice.quick = "supervisor, how = systemd", "two programs", false
	byChoice.policy = `how = "systemd"`
	byChoice.want = refused("supervisor.service")
	return []mode{
		supervisor,
		service("Type=notify", by(ours), nil, "Type=notify", "NotifyAccess=all", start, reload, "KillSignal=SIGQUIT"),
		service("Type=forking", by(ours), map[string]string{
			shopINI: ini("shop", "logto =", "daemonize = /srv/log/shop.log", "pidfile = /srv/run/shop.pid"),
		}, "Type=forking", "PIDFile=/srv/run/shop.pid", start, reload, "KillSignal=SIGQUIT"),
		service("tini", by("hup"), nil, "ExecStart=/usr/bin/tini -- /usr/bin/uwsgi --ini /srv/shop/shop.ini", reload),
		beside(service("runit", by("hup"), map[string]string{
			"blog/blog.ini": ini("blog"), "sv/shop/run": run("shop"), "sv/blog/run": run("blog"),
		}, "ExecStart=/usr/bin/runsvdir -P /srv/sv")),
		byChoice,
		{
			name: "Debian's uwsgi.service", says: "three apps", systemd: true,
			files: map[string]string{
				"/etc/uwsgi/apps-enabled/shop.ini": debian(shop), "/etc/uwsgi/apps-enabled/blog.ini": debian(blog),
				"/etc/uwsgi/apps-enabled/wiki.ini": debian("127.0.0.1:5003"),
			},
			before: "systemctl restart uwsgi", stop: "systemctl stop uwsgi; rm /etc/uwsgi/apps-enabled/*",
			others: []string{blog, "127.0.0.1:5003"}, want: by("hup"),
		},
		service("sh -c", by("hup"), nil, "ExecStart=/bin/sh -c 'uwsgi --ini /srv/shop/shop.ini; echo ended'", reload, "TimeoutStopSec=10s"),
		beside(service("emperor.service", by("hup"), vassals, emperor, reload)),
		beside(service("emperor.service without ExecReload", by("hup"), vassals, emperor)),
	}
}
