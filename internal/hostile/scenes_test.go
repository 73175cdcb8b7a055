package hostile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

var scenes = []scene{
	// It takes longest.
	{name: "hanging", needs: []string{"/dev/fuse"}, config: "[[source]]\nfiles = [\"DIR/hung/*.log\"]\n", before: hanging, hangs: true},
	{name: "calm-1"}, {name: "calm-2"}, {name: "calm-3"},

	// Processes: what they show of themselves, and how many they are.
	{name: "argv", before: longArguments},
	{name: "descriptors", before: func(r *room) {
		for i := range 20 {
			stranger{Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6000+i)}, Dups: 1 << 20}.start(r)
		}
	}},
	// One person may have 65536 users.
	{name: "users-descriptors", before: func(r *room) {
		for i := range 150 {
			stranger{User: 1 + i, Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6000+i)}, Dups: 30000}.start(r)
		}
	}},
	{name: "users-sockets", before: func(r *room) {
		for i := range 40 {
			stranger{User: 1 + i, First: 10000 + 500*i, Ports: 200, Backlog: 4, Fill: true}.start(r)
		}
	}, raised: (*room).onlyTrusted},
	{name: "users-namespaces", before: func(r *room) {
		for i := range 160 {
			stranger{User: 1 + i, Listen: []string{"127.0.0.1:6001"}, Backlog: 4, Fill: true, Apart: true}.start(r)
		}
	}, raised: (*room).onlyTrusted},
	{name: "users-hanging", needs: []string{"/dev/fuse"}, before: func(r *room) {
		dir := hung(r)
		for i := range 120 {
			stranger{User: 1 + i/2, Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6000+i)}, Args: []string{"--ini", dir + "/x.ini"}}.start(r)
		}
	}},
	{name: "threads", before: func(r *room) {
		stranger{Listen: []string{"127.0.0.1:6001"}, Threads: 5000}.start(r)
		stranger{Listen: []string{"127.0.0.1:6002"}, Threads: 1500, Children: 1}.start(r)
	}},
	{name: "children", before: func(r *room) { stranger{Ports: 1000, Children: 200}.start(r) }},
	{name: "processes", before: func(r *room) { stranger{Listen: []string{"127.0.0.1:6001"}, Children: 2000}.start(r) }},
	{name: "zombies", before: func(r *room) { stranger{Ports: 800, Children: 900, Dead: true}.start(r) }},
	{name: "churn", ready: func(r *room) { stranger{Do: "churn", With: []string{"127.0.0.1:0"}}.start(r) }},
	{name: "queues", before: func(r *room) { stranger{Ports: 600, Backlog: 4, Fill: true}.start(r) }, raised: (*room).onlyTrusted},
	{name: "queues-born", ready: func(r *room) { stranger{Ports: 600, Backlog: 4, Fill: true}.start(r) }, raised: (*room).onlyTrusted},
	{name: "namespaces", before: func(r *room) {
		for range 60 {
			stranger{Listen: []string{"127.0.0.1:6001"}, Backlog: 4, Fill: true, Apart: true}.start(r)
		}
	}, raised: (*room).onlyTrusted},
	{name: "names", before: names, raised: (*room).onlyTrusted},

	// Configurations of a uWSGI.
	{name: "config-ini", before: bombs},
	{name: "config-many", before: func(r *room) {
		ini := r.file("wide.ini", wide)
		stranger{Listen: []string{"127.0.0.1:6001"}, Children: 600, Own: true, Args: []string{"--ini", ini}}.start(r)
	}},
	{name: "config-formats", before: nests},
	{name: "config-reach", before: reach},
	{name: "config-swap", before: swapped},

	// What stands in a folder whose logs are followed.
	{name: "packed", noScan: true, before: func(r *room) { r.rotated(); packedBombs(r) }},
	{name: "packed-odd", before: func(r *room) { r.rotated(); oddFiles(r) }},
	{name: "rotation", noScan: true, before: func(r *room) { packedBombs(r) }, ready: func(r *room) {
		stranger{Do: "rotate", With: []string{r.evil}}.start(r)
	}},
	{name: "links", before: links},
	{name: "files", before: manyFiles},
	{name: "records", before: records, raised: (*room).onlyTrusted},
	// Its workers are young, so that for ten seconds the marks may be true.
	{name: "marks", within: 13 * time.Second, ready: marks, raised: (*room).onlyTrusted},
	{name: "flood-of-lines", ready: func(r *room) {
		stranger{Do: "lines", With: []string{r.evil + "/fast.log", "5ms", strings.Repeat(record("127.0.0.1:6001"), 1000)}}.start(r)
	}, raised: (*room).onlyTrusted},
	{name: "forged", before: func(r *room) { r.file("forged.log", "") }, ready: forged, raised: func(r *room) {
		r.onlyTrusted()
		for _, e := range r.trail() {
			if e["action"] == "start" {
				r.t.Errorf("started: %v", e)
			}
		}
	}},

	// Who asks qwatch, and whom it asks.
	{name: "clients-kept", ready: func(r *room) {
		stranger{Do: "clients", With: []string{metrics, "32", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"}}.start(r)
	}},
	{name: "clients-silent", ready: func(r *room) {
		stranger{Do: "clients", With: []string{metrics, "1000", ""}}.start(r)
	}},
	{name: "stats", config: "[[source]]\nstats = \"127.0.0.1:9191\"\n[[source]]\nstats = \"127.0.0.1:9192\"\n[[source]]\nstats = \"http://127.0.0.1:9193\"\n", before: statsServers},

	{name: "port-taken", before: func(r *room) {
		end := stranger{Listen: []string{metrics}}.start(r)
		r.scene.ready = func(*room) { end() }
	}},

	// Its own state, when the file system has played tricks.
	{name: "state-sparse", before: func(r *room) { r.state(8 << 30) }},
}

func record(socket string) string {
	return fmt.Sprintf("Wed Nov 25 12:00:00 2026 - *** uWSGI listen queue of socket %q (fd: 3) full !!! (101/100) ***\n", socket)
}

func longArguments(r *room) {
	stranger{Listen: []string{"127.0.0.1:6001"}, Cmdline: 64}.start(r)
	stranger{Listen: []string{"127.0.0.1:6002"}, Cmdline: 2048}.start(r)
	stranger{Listen: []string{"127.0.0.1:6003"}, Args: strings.Split(strings.Repeat("x", 50000), "")}.start(r)
	stranger{Listen: []string{"127.0.0.1:6004"}, Args: []string{"--ini", strings.Repeat("/a", 50000)}}.start(r)
}

// hard are names that would do something on a terminal, or in a log.
var hard = []string{"\x1b[2J\x1b[31mred", "a\u202Egol.ssecca", "b\u2066\u2069", "c\nfull !!! (9/9) ***", "d\r\x00e", "f\x9b31m", "\xff\xfe", "g\u2028h", "\u200Bi", "j\"}{\"_PID\":\"1\""}

func names(r *room) {
	for i, text := range hard {
		name := strings.NewReplacer("\x00", "", "/", "").Replace(text)
		ini := r.file(name+".ini", "[uwsgi]\n"+text+" = "+text+"\nlisten = "+text+"\n")
		stranger{
			Comm: name, Backlog: 4, Fill: true, Args: []string{"--ini", ini},
			Listen: []string{filepath.Join(r.evil, name+".sock"), "@" + text, fmt.Sprintf("127.0.0.1:%d", 6000+i)},
		}.start(r)
		stranger{Listen: []string{filepath.Join(r.evil, name+".full")}, Backlog: 4, Fill: true, Args: []string{"--socket", r.evil + "/" + name}}.start(r)
		r.file(name+".log", record(name)+record(filepath.Join(r.evil, name+".sock"))+name+" listen queue "+name+" full !!!\n")
		if err := os.Chmod(r.file(name+"-locked.log", ""), 0); err != nil {
			r.t.Fatal(err)
		}
	}
	r.file("lines.log", strings.Join(hard, "\n")+record(strings.Join(hard, "")))
}

func bombs(r *room) {
	big := r.file("big", strings.Repeat("A", 1<<20))
	inis := map[string]string{
		"multiply": "big = @(" + big + ")\n" + lines(9000, "o%d = x%%(big)\n"),
		"files":    lines(199, "o%d = x@("+big+")\n"),
		"double":   "a0 = AAAAAAAAAAAAAAAA\n" + doubled(60),
		"self":     strings.Repeat("ini = "+r.evil+"/self.ini\n", 20000),
		"parens":   "a = " + strings.Repeat("$(", 4000) + "\n" + strings.Repeat("b = $($($($(\n", 9000),
		"long":     "a = " + strings.Repeat("x", 8<<20) + "\n",
		"listens":  strings.Repeat("listen = 4\n", 100000),
		"loop":     "for = a b c d e f g h\n" + strings.Repeat("for = a b c d e f g h\nlisten = %(_)\n", 500) + strings.Repeat("endfor =\n", 501),
	}
	r.file("wide.ini", wide)
	i := 0
	for name, text := range inis {
		stranger{Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6000+i)}, Args: []string{"--ini", r.file(name+".ini", "[uwsgi]\n"+text)}}.start(r)
		i++
	}
	// In two files that each include the other many times, and a section's name
	// that stands in each of many placeholders.
	r.file("a.ini", "[uwsgi]\n"+strings.Repeat("ini = "+r.evil+"/b.ini\n", 300))
	r.file("b.ini", "[uwsgi]\n"+strings.Repeat("ini = "+r.evil+"/a.ini\n", 300))
	stranger{Listen: []string{"127.0.0.1:6101"}, Args: []string{"--ini", r.evil + "/a.ini"}}.start(r)
	section := r.file("section.ini", "[uwsgi]\na = "+strings.Repeat("%x", 500000)+"\n")
	stranger{Listen: []string{"127.0.0.1:6102"}, Args: []string{"--ini=" + section + ":" + strings.Repeat("s", 100000)}}.start(r)
	many := make([]string, 2000)
	for i := range many {
		many[i] = "--ini=" + r.evil + "/wide.ini"
	}
	stranger{Listen: []string{"127.0.0.1:6103"}, Args: many}.start(r)
}

// wide fills one long value in many times.
var wide = "[uwsgi]\nbig = " + strings.Repeat("A", 8000) + "\n" + lines(9000, "o%d = x%%(big)%%(big)%%(big)\n")

func lines(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func doubled(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d = %%(a%d)%%(a%d)\n", i+1, i, i)
	}
	return b.String()
}

func nests(r *room) {
	const m = 1 << 20
	texts := map[string]string{
		"brackets.yaml": "uwsgi: " + strings.Repeat("[", m),
		"dashes.yaml":   "uwsgi:\n " + strings.Repeat("- ", m/2),
		"marks.yaml":    strings.Repeat("? ", m/2),
		"braces.yaml":   "uwsgi: " + strings.Repeat("{a: ", m/4),
		"anchors.yaml":  "uwsgi:\n a: &a [x,x,x,x,x,x,x,x,x]\n" + aliases(),
		"keys.yaml":     "uwsgi:\n" + lines(m/12, " k%d: v\n"),
		"comments.yaml": "uwsgi:\n" + strings.Repeat(" #\n", m/3),
		"quoted.yaml":   "uwsgi: {a: \"" + strings.Repeat(`\n`, m/2) + "\"}",
		"nest.json":     `{"uwsgi":{"a":` + strings.Repeat("[", m),
		"many.json":     `{"uwsgi":{` + strings.Repeat(`"a":1,`, m/6) + `"b":1}}`,
		"nest.xml":      "<uwsgi>" + strings.Repeat("<a>", m/3),
		"attrs.xml":     "<uwsgi " + strings.Repeat("a='b' ", m/6) + "></uwsgi>",
		"laughs.xml":    laughs(),
		"outside.xml":   `<!DOCTYPE uwsgi [<!ENTITY x SYSTEM "file://` + r.secret + `">]><uwsgi><listen>&x;</listen></uwsgi>`,
	}
	i := 0
	for name, text := range texts {
		option := "--" + strings.TrimPrefix(filepath.Ext(name), ".")
		stranger{Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6000+i)}, Args: []string{option, r.file(name, text)}}.start(r)
		i++
	}
}

func aliases() string {
	var b strings.Builder
	for c := 'b'; c < 'n'; c++ {
		fmt.Fprintf(&b, " %c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 9))
	}
	return b.String() + " listen: *m\n"
}

func laughs() string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0"?><!DOCTYPE uwsgi [<!ENTITY a "ha">`)
	for c := 'b'; c < 'n'; c++ {
		fmt.Fprintf(&b, `<!ENTITY %c "%s">`, c, strings.Repeat(fmt.Sprintf("&%c;", c-1), 10))
	}
	return b.String() + `]><uwsgi><listen>&m;</listen></uwsgi>`
}

// reach has configurations that lead to what the stranger may not read, or to
// what no file is.
func reach(r *room) {
	link := func(name, to string) string {
		path := filepath.Join(r.evil, name)
		if err := os.Symlink(to, path); err != nil {
			r.t.Fatal(err)
		}
		r.own(path)
		return path
	}
	fifo := filepath.Join(r.evil, "fifo.ini")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		r.t.Fatal(err)
	}
	r.own(fifo)
	self := fmt.Sprintf("/proc/%d/", r.uwsgi.Pid)
	files := []string{
		r.secret, fifo, link("secret.ini", r.secret), link("loop.ini", "loop.ini"), link("zero.ini", "/dev/zero"), link("full.ini", "/dev/full"),
		link("environ.ini", "/proc/self/environ"), link("mem.ini", "/proc/self/mem"), link("fd.ini", "/proc/self/fd/0"), "/dev/stdin", "/dev/tty",
		"/proc/kmsg", "/proc/self/environ", self + "environ", self + "root" + r.secret, self + "cwd", "/proc/self/../" + r.secret, "/sys/kernel/tracing/trace_pipe",
		link("dir.ini", "/"), r.evil, "../../../../../../../.." + r.secret, "/etc/shadow", "/proc/sysrq-trigger", "http://127.0.0.1:9918/x.ini", "exec://cat " + r.secret, "fd://0", "sym://x",
	}
	var inherits strings.Builder
	for i, file := range files {
		fmt.Fprintf(&inherits, "o%d = @(%s)\n", i, file)
		// Each of them as it is, from a file, and with a value of its text.
		text := fmt.Sprintf("[uwsgi]\ninherit = @(%s)\nlisten = @(%s)\nini = %s\n", file, file, file)
		stranger{Dir: r.evil, Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6000+i)}, Args: []string{"--ini", file}}.start(r)
		stranger{Dir: r.evil, Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6100+i)}, Args: []string{"--ini", r.file(fmt.Sprintf("reach%d.ini", i), text)}, Fill: true}.start(r)
	}
	stranger{Listen: []string{"127.0.0.1:6099"}, Args: []string{"--ini", r.file("all.ini", "[uwsgi]\n"+inherits.String())}}.start(r)
	r.t.Cleanup(func() {
		// A descriptor without a reader opens only where somebody waits behind it.
		if fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			unix.Close(fd)
			r.t.Error("somebody has the FIFO open")
		}
	})
}

// swapped has configurations that are now the stranger's, now not.
func swapped(r *room) {
	mine := r.file("mine.ini", "[uwsgi]\nlisten = 100\n")
	if err := os.MkdirAll(r.evil+"/real", 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.own(r.evil + "/real")
	r.file("real/secret", "listen = 1\n")
	stranger{Listen: []string{"127.0.0.1:6001"}, Fill: true, Args: []string{"--ini", r.evil + "/now.ini"}, Do: "swap", With: []string{r.evil + "/now.ini", mine, r.secret, "/proc/self/environ", "/dev/zero"}}.start(r)
	// A folder on the way is swapped, and what stands at its end is named the same.
	text := "[uwsgi]\n" + strings.Repeat("inherit = @("+r.evil+"/way/secret)\n", 50)
	stranger{Listen: []string{"127.0.0.1:6002"}, Fill: true, Args: []string{"--ini", r.file("way.ini", text)}, Do: "swap", With: []string{r.evil + "/way", r.evil + "/real", r.dir}}.start(r)
}

// rotated has a daemon follow a log of the stranger's, and end. The log is
// another one then.
func (r *room) rotated() {
	log := r.file("app.log", strings.Repeat("one line\n", 1000))
	r.start()
	r.until("the log is read", func() bool { return strings.Contains(r.read("state/positions.json"), "app.log") || r.hasEnded() })
	r.stop()
	if err := os.Remove(log); err != nil {
		r.t.Fatal(err)
	}
	r.file("app.log", "another line\n")
}

// packedBombs are neighbours of a log that become a thousand times their size.
func packedBombs(r *room) {
	var gz bytes.Buffer
	w, _ := gzip.NewWriterLevel(&gz, 9)
	w.Write(make([]byte, 4<<20))
	w.Close()
	r.file("app.log.1.gz", strings.Repeat(gz.String(), 5000)) // 20 GiB
	var text bytes.Buffer
	w = gzip.NewWriter(&text)
	w.Write(bytes.Repeat([]byte("one line\n"), 400<<10))
	w.Close()
	r.file("app.log.2.gz", strings.Repeat(text.String(), 5000))
	e, _ := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20))
	r.file("app.log.3.zst", strings.Repeat(string(e.EncodeAll(make([]byte, 8<<20), nil)), 3000))
	// A frame that asks for a window of 2 GiB, and one of 512 MiB.
	r.file("app.log.4.zst", "\x28\xb5\x2f\xfd\x00\xa8"+strings.Repeat("\x02\x00\x10\x00", 1000))
	r.file("app.log.5.zst", "\x28\xb5\x2f\xfd\x00\x98"+strings.Repeat("\x02\x00\x10\x00", 1000))
	r.file("app.log.6.bz2", "BZh9"+strings.Repeat("1AY&SY", 100000))
	r.file("app.log.7.xz", "\xfd7zXZ\x00"+strings.Repeat("\x00\x04", 100000))
	r.file("app.log.8.gz", "not packed at all")
	for i := range 300 {
		r.file(fmt.Sprintf("app.log.%d.gz", 10+i), gz.String()+text.String())
	}
}

// oddFiles are no files, and stand where a rotation puts some.
func oddFiles(r *room) {
	for i, ending := range []string{".gz", ".zst", ".xz", ".bz2", "", ".log"} {
		path := func(kind int) string { return filepath.Join(r.evil, fmt.Sprintf("app.log.%d%s", 10*i+kind, ending)) }
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path(1)})
			unix.Close(fd)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		for _, err := range []error{
			unix.Mkfifo(path(2), 0o666), os.Mkdir(path(3), 0o755), os.Symlink("/dev/zero", path(4)), os.Symlink(path(5), path(5)),
			os.Symlink(r.secret, path(6)), os.Symlink("/proc/self/fd/0", path(7)), unix.Mkfifo(path(8), 0),
		} {
			if err != nil {
				r.t.Fatal(err)
			}
		}
	}
	if err := unix.Mkfifo(r.evil+"/pipe.log", 0o666); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Mkdir(r.evil+"/folder.log", 0o755); err != nil {
		r.t.Fatal(err)
	}
}

// links are logs that lead to what the stranger may not read.
func links(r *room) {
	for i, to := range []string{r.secret, "/etc/shadow", "/proc/kmsg", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/self/environ", "/proc/1/environ", "/sys/kernel/tracing/trace_pipe", "/", r.dir + "/state/audit.jsonl", r.dir + "/log"} {
		if err := os.Symlink(to, fmt.Sprintf("%s/link%d.log", r.evil, i)); err != nil {
			r.t.Fatal(err)
		}
	}
	mine := r.file("mine", "a line\n")
	stranger{Do: "swap", With: []string{r.evil + "/now.log", mine, r.secret, "/dev/zero", r.evil}}.start(r)
}

func manyFiles(r *room) {
	for i := range 8000 {
		path := fmt.Sprintf("%s/many%05d.log", r.evil, i)
		var err error
		switch i % 4 {
		case 0:
			err = unix.Mkfifo(path, 0o666)
		case 1:
			err = os.WriteFile(path, []byte(record(fmt.Sprint("/tmp/", i))), 0)
		default:
			err = os.WriteFile(path, []byte(record(fmt.Sprint("/tmp/", i))), 0o644)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		r.own(path)
	}
}

// records are lines that name more sockets than there can be, and lines without
// an end.
func records(r *room) {
	var b strings.Builder
	for i := range 150000 {
		b.WriteString(record(fmt.Sprintf("/run/%d/%s", i, strings.Repeat("x", i%100))))
	}
	r.file("sockets.log", b.String())
	r.file("endless.log", strings.Repeat("*** uWSGI listen queue of socket ", 1<<20))
	r.file("json.log", `{"MESSAGE":`+strings.Repeat(`{"a":[`, 1<<20))
	r.file("trusted.log", strings.Repeat(record(r.uwsgi.Address), 1000))
	r.file("zero.log", strings.Repeat("\x00", 16<<20))
}

// marks are lines by which uWSGI tells of its own end and its reloads, in the
// log of the trusted one, which prints what remote clients say.
func marks(r *room) {
	f, err := os.OpenFile(r.app+"/real.log", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for range 200 {
		fmt.Fprintln(f, "[deadlock-detector] a process holding a robust mutex died. recovering...")
		fmt.Fprintln(f, "gracefully (RE)spawned uWSGI master process (pid: 1)")
		fmt.Fprintln(f, "DAMN ! worker 1 (pid: 99) died, killed by signal 9 :( trying respawn ...")
		fmt.Fprintln(f, "*** uWSGI is running in multiple interpreter mode ***")
		fmt.Fprintln(f, "VACUUM: unix socket removed.")
	}
	stranger{Do: "lines", With: []string{r.evil + "/marks.log", "1ms", "gracefully (RE)spawned uWSGI master process (pid: " + fmt.Sprint(r.uwsgi.Pid) + ")\n...gracefully killing workers...\nSIGINT/SIGTERM received...killing workers...\n"}}.start(r)
}

// forged are lines that say who wrote them, as only the journal may.
func forged(r *room) {
	const full = "Listen queue size is greater than the system max net.core.somaxconn (128)."
	f, err := os.OpenFile(r.evil+"/forged.log", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for _, unit := range []string{"ssh.service", "uwsgi.service", "../x.service", "\\u001b[2J.service", "a\\u202Eb.service"} {
		fmt.Fprintf(f, `{"_SYSTEMD_UNIT":"%s","_PID":"1","MESSAGE":"%s"}`+"\n", unit, full)
		fmt.Fprintf(f, `{"SYSTEMD_UNIT":"%s","unit":"%s","pid":1,"MESSAGE":"%s"}`+"\n", unit, unit, strings.TrimSpace(strings.ReplaceAll(record("127.0.0.1:6001"), `"`, `\"`)))
	}
	fmt.Fprintf(f, `{"_PID":"%d","_SYSTEMD_UNIT":"x.service","MESSAGE":"*** uWSGI listen queue of socket \"%s\" (fd: 3) full !!! (9000/100) ***"}`+"\n", r.uwsgi.Pid, r.uwsgi.Address)
}

func statsServers(r *room) {
	stranger{Do: "stats", With: []string{"127.0.0.1:9191", `{"version":"2.0","workers":[`, `{"pid":1,"requests":1,"status":"busy"},`}}.start(r)
	stranger{Do: "stats", With: []string{"127.0.0.1:9192", `{"version":"\u001b[2J`, ""}}.start(r)
	stranger{Do: "stats", With: []string{"127.0.0.1:9193", "HTTP/1.0 200 OK\r\n\r\n" + strings.Repeat(`{"a":[`, 1<<18), `{"a":[`}}.start(r)
}

// hung is a file system that never answers, as that of a server which is gone.
func hung(r *room) (dir string) {
	dir = r.dir + "/hung"
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		if err = os.Mkdir(dir, 0o755); err == nil {
			err = unix.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd))
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH); unix.Close(fd) })
	return dir
}

// hanging has one with a source in it and the configurations of a stranger.
func hanging(r *room) {
	dir := hung(r)
	for i := range 60 {
		stranger{Listen: []string{fmt.Sprintf("127.0.0.1:%d", 6000+i)}, Args: []string{"--ini", dir + "/x.ini"}}.start(r)
	}
}

// state makes the files of qwatch's own state as long as that, without the bytes.
func (r *room) state(size int64) {
	if err := os.Mkdir(r.dir+"/state", 0o700); err != nil {
		r.t.Fatal(err)
	}
	for _, name := range []string{"audit.jsonl", "audit.jsonl.1", "positions.json", "journal.json"} {
		path := filepath.Join(r.dir, "state", name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			r.t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			r.t.Fatal(err)
		}
	}
}
