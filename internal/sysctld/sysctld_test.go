package sysctld

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	type line struct {
		Key, Value string
		Exclude    bool
		Number     int
	}
	for _, tt := range []struct {
		name, text string
		want       []line
	}{
		{"plain", "net.core.somaxconn=1024\n", []line{{"net/core/somaxconn", "1024", false, 1}}},
		{"blanks, comments", "# c\n; c\n\n \t\n  net.core.somaxconn \t= 1024 \n#net.a=1", []line{{"net/core/somaxconn", "1024", false, 5}}},
		{"no final newline", "net.a=1", []line{{"net/a", "1", false, 1}}},
		{"CRLF counts one line", "\r\nnet.a=1\r\nnet.b=2\r\n", []line{{"net/a", "1", false, 2}, {"net/b", "2", false, 3}}},
		{"minus ignores failure", "-net.a = 1", []line{{"net/a", "1", false, 1}}},
		{"minus alone excludes", "-net.ipv4.conf.eth0.rp_filter\n", []line{{"net/ipv4/conf/eth0/rp_filter", "", true, 1}}},
		{"slashes", "net/core/somaxconn=1\n/net/core/somaxconn=2", []line{{"net/core/somaxconn", "1", false, 1}, {"net/core/somaxconn", "2", false, 2}}},
		{"dotted interface", "net/ipv4/conf/enp3s0.200/forwarding=1\nnet.ipv4.conf.enp3s0/200.forwarding=2",
			[]line{{"net/ipv4/conf/enp3s0.200/forwarding", "1", false, 1}, {"net/ipv4/conf/enp3s0.200/forwarding", "2", false, 2}}},
		{"double slashes", "net//core/somaxconn=1", []line{{"net/core/somaxconn", "1", false, 1}}},
		{"value with =", "kernel.core_pattern=|/x a=%p", []line{{"kernel/core_pattern", "|/x a=%p", false, 1}}},
		{"empty value", "net.a=\nnet.b = ", []line{{"net/a", "", false, 1}, {"net/b", "", false, 2}}},
		{"no assignment", "net.core.somaxconn 1024\n=5\n-\n", nil},
		{"trailing comment is value", "net.a=1 # c", []line{{"net/a", "1 # c", false, 1}}},
		{"NUL ends a line", "net.a=1\x00net.b=2", []line{{"net/a", "1", false, 1}, {"net/b", "2", false, 2}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []line
			for _, l := range Parse([]byte(tt.text)) {
				got = append(got, line{l.Key, l.Value, l.Exclude, l.Number})
				if !l.Exclude && tt.text[l.start:l.end] != l.Value {
					t.Errorf("text[%d:%d] = %q, want the value %q", l.start, l.end, tt.text[l.start:l.end], l.Value)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.text, d)
			}
		})
	}
}

func TestInt(t *testing.T) {
	for text, want := range map[string]int{
		"0": 0, "1024": 1024, "-5": -5, "0x10": 16, "0XB0": 176, "010": 8, "": -1, "4096 87380 6291456": -1,
		"08": -1, "+5": -1, "1_000": -1, "0b1": -1, "0o17": -1, "5#": -1, "--5": -1, "99999999999999999999": -1,
	} {
		got, ok := Line{Value: text}.Int()
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("Int of %q = %d, want %d", text, got, want)
		}
	}
}

// The boots of TestWinner are also given to the real readers in
// TestRealReaders.
var boots = []struct {
	name            string
	files           map[string]string // a value "-> X" is a symlink
	systemd, procps string
}{
	{"none", nil, "none", "none"},
	{"one", map[string]string{"etc/sysctl.d/90-qwatch.conf": "net.core.somaxconn = 1024"}, "1024 /etc/sysctl.d/90-qwatch.conf:1", "same"},
	{"by name, not directory", map[string]string{
		"etc/sysctl.d/10-a.conf":     "net.core.somaxconn=300",
		"run/sysctl.d/20-a.conf":     "net.core.somaxconn=301",
		"usr/lib/sysctl.d/30-a.conf": "\nnet.core.somaxconn=302",
	}, "302 /usr/lib/sysctl.d/30-a.conf:2", "same"},
	{"same name: etc", map[string]string{
		"etc/sysctl.d/50-a.conf":           "net.core.somaxconn=300",
		"run/sysctl.d/50-a.conf":           "net.core.somaxconn=301",
		"usr/local/lib/sysctl.d/50-a.conf": "net.core.somaxconn=302",
		"usr/lib/sysctl.d/50-a.conf":       "net.core.somaxconn=303",
	}, "300 /etc/sysctl.d/50-a.conf:1", "same"},
	{"same name: run", map[string]string{
		"run/sysctl.d/50-a.conf":           "net.core.somaxconn=301",
		"usr/local/lib/sysctl.d/50-a.conf": "net.core.somaxconn=302",
		"usr/lib/sysctl.d/50-a.conf":       "net.core.somaxconn=303",
	}, "301 /run/sysctl.d/50-a.conf:1", "same"},
	{"last line in a file", map[string]string{"etc/sysctl.d/a.conf": "net.core.somaxconn=300\nnet/core/somaxconn=200\n"}, "200 /etc/sysctl.d/a.conf:2", "same"},
	{"empty file masks", map[string]string{
		"etc/sysctl.d/50-a.conf":     "",
		"usr/lib/sysctl.d/50-a.conf": "net.core.somaxconn=303",
	}, "none", "same"},
	{"null device masks", map[string]string{
		"etc/sysctl.d/50-a.conf":     "-> /dev/null",
		"usr/lib/sysctl.d/50-a.conf": "net.core.somaxconn=303",
		"usr/lib/sysctl.d/40-a.conf": "net.core.somaxconn=304",
	}, "304 /usr/lib/sysctl.d/40-a.conf:1", "same"},
	{"a link to nowhere masks", map[string]string{
		"etc/sysctl.d/50-a.conf":     "-> none",
		"usr/lib/sysctl.d/50-a.conf": "net.core.somaxconn=303",
	}, "none", "same"},
	{"ways to write it", map[string]string{"etc/sysctl.d/a.conf": "net.core.somaxconn = 300\r\n; c\r\n\t-net/core/somaxconn=\t0x200 \r\n"}, "0x200 /etc/sysctl.d/a.conf:3", "same"},
	{"octal", map[string]string{"etc/sysctl.d/a.conf": "net.core.somaxconn = 0500"}, "0500 /etc/sysctl.d/a.conf:1", "same"},
	{"other names are not read", map[string]string{
		"etc/sysctl.d/90.conf.bak": "net.core.somaxconn=300", "etc/sysctl.d/README": "net.core.somaxconn=300",
		"etc/sysctl.d/.90-qwatch.conf.1.tmp": "net.core.somaxconn=300",
	}, "none", "same"},
	{"sysctl.conf without the link", map[string]string{
		"etc/sysctl.conf":             "net.core.somaxconn=200",
		"etc/sysctl.d/90-qwatch.conf": "net.core.somaxconn=1024",
	}, "1024 /etc/sysctl.d/90-qwatch.conf:1", "200 /etc/sysctl.conf:1"},
	{"Debian's link", map[string]string{
		"etc/sysctl.conf":             "# Debian\nnet.core.somaxconn=200",
		"etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf",
		"etc/sysctl.d/90-qwatch.conf": "net.core.somaxconn=1024",
	}, "200 /etc/sysctl.d/99-sysctl.conf:2", "200 /etc/sysctl.conf:2"},
	{"a name beats a glob, wherever", map[string]string{
		"etc/sysctl.d/10-a.conf": "net.core.somaxconn=300",
		"etc/sysctl.d/90-a.conf": "net.core.somax*=301",
	}, "300 /etc/sysctl.d/10-a.conf:1", "same"},
	{"last glob", map[string]string{"etc/sysctl.d/a.conf": "net.core.somax*=300\nnet.*.somaxconn=301\nnet.*=302"}, "301 /etc/sysctl.d/a.conf:2", "same"},
	{"excluded from globs", map[string]string{"etc/sysctl.d/a.conf": "net.core.somax*=300\n-net.core.somaxconn"}, "none", "same"},
	{"excluded after a name", map[string]string{"etc/sysctl.d/a.conf": "net.core.somaxconn=300\n-net.core.somaxconn"}, "none", "300 /etc/sysctl.d/a.conf:1"},
	{"set after excluded", map[string]string{"etc/sysctl.d/a.conf": "-net.core.somaxconn\n-net.core.somaxconn=300"}, "300 /etc/sysctl.d/a.conf:2", "same"},
}

const key = "net.core.somaxconn"

func winner(b Boot, r Reader) string {
	s, ok := b.Winner(r, key)
	if !ok {
		return "none"
	}
	return fmt.Sprintf("%s %s:%d", s.Value, s.File, s.Number)
}

func mapFS(files map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range files {
		target, link := strings.CutPrefix(text, "-> ")
		switch {
		case target == "/dev/null" && link:
			root[name] = &fstest.MapFile{Mode: fs.ModeDevice | fs.ModeCharDevice}
		case link:
			root[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink}
		default:
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return root
}

func TestWinner(t *testing.T) {
	for _, tt := range boots {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Load(mapFS(tt.files))
			if err != nil {
				t.Fatal(err)
			}
			if tt.procps == "same" {
				tt.procps = tt.systemd
			}
			want := []string{tt.systemd, tt.procps}
			if d := cmp.Diff(want, []string{winner(b, Systemd), winner(b, Procps)}); d != "" {
				t.Errorf("winner for systemd-sysctl, procps (-want +got):\n%s", d)
			}
		})
	}
}

func TestWinningName(t *testing.T) {
	for _, tt := range []struct{ other, text, want string }{
		{"10-a.conf", key + "=1", "90-qwatch.conf"},
		{"99-sysctl.conf", "net.core.netdev_max_backlog=1", "90-qwatch.conf"},
		{"90-qwatch.conf", key + "=1", "90-qwatch.conf"},
		{"95-b.conf", key + "=1", "99-qwatch.conf"},
		{"99-sysctl.conf", key + "=1", "99-zz-qwatch.conf"},
		{"99-zz.conf", key + "=1", "zz-qwatch.conf"},
		{"zz.conf", "-" + key, "zz_qwatch.conf"},
		{"~.conf", key + "=1", "~_qwatch.conf"},
	} {
		files := map[string]string{"etc/sysctl.d/" + tt.other: tt.text}
		b, err := Load(mapFS(files))
		if err != nil {
			t.Fatal(err)
		}
		got := b.WinningName("90-qwatch.conf", key)
		if got != tt.want {
			t.Errorf("beside %s: WinningName = %q, want %q", tt.other, got, tt.want)
		}
		files["etc/sysctl.d/"+got] = key + "=1024"
		if b, err = Load(mapFS(files)); err != nil {
			t.Fatal(err)
		}
		if won := winner(b, Systemd); won != "1024 /etc/sysctl.d/"+got+":1" {
			t.Errorf("beside %s: %s does not win, but %s", tt.other, got, won)
		}
	}
}

func TestLoadUnreadable(t *testing.T) {
	root := mapFS(map[string]string{"etc/sysctl.d/a.conf": key + "=300"})
	b, err := Load(broken{root, "etc/sysctl.d/b.conf"})
	if err == nil || !strings.Contains(err.Error(), "/etc/sysctl.d/b.conf") {
		t.Errorf("Load with an unreadable b.conf: error %v, want one that names it", err)
	}
	if got := winner(b, Systemd); got != "300 /etc/sysctl.d/a.conf:1" {
		t.Errorf("winner = %q, want that of the readable file", got)
	}
}

// broken is a file system in which one file exists and cannot be read.
type broken struct {
	fstest.MapFS
	name string
}

func (b broken) ReadDir(name string) ([]fs.DirEntry, error) {
	b.MapFS = maps.Clone(b.MapFS)
	b.MapFS[b.name] = &fstest.MapFile{}
	return b.MapFS.ReadDir(name)
}

func (b broken) Stat(name string) (fs.FileInfo, error) {
	if name == b.name {
		name = "etc/sysctl.d/a.conf"
	}
	return b.MapFS.Stat(name)
}

func (b broken) ReadFile(name string) ([]byte, error) {
	if name == b.name {
		return nil, fs.ErrPermission
	}
	return b.MapFS.ReadFile(name)
}

func TestSet(t *testing.T) {
	const note = "# qwatch: was 128 (sysctl -w net.core.somaxconn=128). full\n"
	for _, tt := range []struct{ name, old, want string }{
		{"new file", "", Header + "\n" + note + "net.core.somaxconn = 1024\n"},
		{"appended", "# mine\nnet.a=1", "# mine\nnet.a=1\n\n" + note + "net.core.somaxconn = 1024\n"},
		{"raised in its place", "net.a=1\n  net/core/somaxconn =\t200 \nnet.b=2\n", "net.a=1\n" + note + "  net/core/somaxconn =\t1024 \nnet.b=2\n"},
		{"note is kept", "# qwatch: was 100.\nnet.core.somaxconn=512\n", "# qwatch: was 100.\nnet.core.somaxconn=1024\n"},
		{"higher stays", "net.core.somaxconn=4096\n", "net.core.somaxconn=4096\n"},
		{"higher in hex stays", "net.core.somaxconn=0x1000\n", "net.core.somaxconn=0x1000\n"},
		{"the last one counts", "net.core.somaxconn=4096\nnet.core.somaxconn=200", "net.core.somaxconn=4096\n" + note + "net.core.somaxconn=1024"},
		{"CRLF", "net.core.somaxconn=200\r\nnet.b=2\r\n", note + "net.core.somaxconn=1024\r\nnet.b=2\r\n"},
		{"no number", "net.core.somaxconn=many\n", note + "net.core.somaxconn=1024\n"},
		{"excluded", "-net.core.somaxconn\n", "-net.core.somaxconn\n\n" + note + "net.core.somaxconn = 1024\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Set([]byte(tt.old), key, 1024, 128, "full")
			if d := cmp.Diff(tt.want, string(got)); d != "" {
				t.Errorf("Set (-want +got):\n%s", d)
			}
		})
	}
}

func TestSetKeepsForeignTextInTheNote(t *testing.T) {
	got := Set(nil, key, 1024, 128, "full: /run/a\nkernel.sysrq=1\r\u2028b\u202e")
	if note := "full: /run/a�kernel.sysrq=1��b�\n"; !strings.Contains(string(got), note) {
		t.Errorf("no %q in %q", note, got)
	}
	want := map[string]int{key: 1024}
	if d := cmp.Diff(want, Values(got)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

func TestUnset(t *testing.T) {
	const mine = "# mine\nnet.a=1\n"
	one := Set([]byte(mine), key, 1024, 128, "full")
	two := Set(one, "net.core.netdev_max_backlog", 16384, 1000, "")
	for _, tt := range []struct{ name, old, want string }{
		{"undoes Set", string(one), mine},
		{"of a fresh file", string(Set(nil, key, 1024, 128, "full")), ""},
		{"the other key stays", string(two), string(Set([]byte(mine), "net.core.netdev_max_backlog", 16384, 1000, ""))},
		{"key not there", mine, mine},
		{"no note", "net.a=1\nnet.core.somaxconn=1\nnet.b=1", "net.a=1\nnet.b=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, string(Unset([]byte(tt.old), key))); d != "" {
				t.Errorf("Unset (-want +got):\n%s", d)
			}
		})
	}
}

func TestValues(t *testing.T) {
	text := []byte("net.core.somaxconn=128\nnet/core/somaxconn=1024\nnet.a=1\n-net.a\nnet.b=1 2\nnet.*=5\nnet.ipv4.conf.eth0/1.x=7\n")
	want := map[string]int{key: 1024, "net.ipv4.conf.eth0/1.x": 7}
	if d := cmp.Diff(want, Values(text)); d != "" {
		t.Errorf("Values (-want +got):\n%s", d)
	}
	if got := Value(text, key); got != 1024 {
		t.Errorf("Value = %d, want 1024", got)
	}
}

func FuzzSet(f *testing.F) {
	for _, b := range boots {
		for _, text := range b.files {
			f.Add([]byte(text), 1024, "why")
		}
	}
	f.Add([]byte("net.core.somaxconn=200\r\n\x00net.core.somaxconn\r=\x0b5"), 70000, "a\nb")
	f.Fuzz(func(t *testing.T, old []byte, n int, why string) {
		n = max(n, 1)
		before := bytes.Clone(old)
		text := Set(old, key, n, 128, why)
		if !bytes.Equal(before, old) {
			t.Fatal("Set wrote into what it was given")
		}
		if got := Value(text, key); got < n || got < Value(old, key) {
			t.Fatalf("after Set(%q, %d) = %q the value is %d", old, n, text, got)
		}
		if again := Set(text, key, n, 128, why); !bytes.Equal(again, text) {
			t.Fatalf("Set is not idempotent: %q, then %q", text, again)
		}
		if d := cmp.Diff(others(old), others(text)); d != "" {
			t.Fatalf("Set(%q) changed other settings (-before +after):\n%s", old, d)
		}
		if d := cmp.Diff(others(old), others(Unset(text, key))); d != "" {
			t.Fatalf("Unset(%q) changed other settings (-before +after):\n%s", text, d)
		}
	})
}

func others(text []byte) []string {
	var s []string
	for _, l := range Parse(text) {
		if l.Key != Path(key) {
			s = append(s, fmt.Sprint(l.Key, "=", l.Value, l.Exclude))
		}
	}
	return s
}
