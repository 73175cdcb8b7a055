package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLayers holds the product to its layers: imports point down only, the
// daemon does not know the host, package apply alone changes another process,
// the kernel or /etc, only it and package kernel reach into other processes,
// namespaces and /proc/sys, and what decides knows no operating system.
func TestLayers(t *testing.T) {
	may := map[string][]string{
		"cmd/qwatch":          {"internal/apply", "internal/bounded", "internal/config", "internal/daemon", "internal/host", "internal/text", "internal/trail", "matcher", "remediate", "remediate/diagnose", "remediate/facts", "systemd", "tailer", "tailer/bulk", "tailer/journal"},
		"internal/daemon":     {"internal/config", "internal/exposition", "internal/text", "matcher", "remediate", "remediate/diagnose", "remediate/facts", "systemd", "tailer", "tailer/file", "tailer/journal"},
		"internal/deploy":     {"internal/bounded", "internal/kernel", "internal/text", "internal/uwsgi", "internal/uwsgiconf", "remediate/facts"},
		"internal/host":       {"internal/bounded", "internal/deploy", "internal/kernel", "internal/lookup", "internal/sysctld", "internal/text", "internal/uwsgi", "remediate/facts", "systemd"},
		"internal/apply":      {"internal/bounded", "internal/deploy", "internal/kernel", "internal/lookup", "internal/sysctld", "internal/text", "internal/uwsgi", "matcher", "remediate", "remediate/facts"},
		"internal/uwsgi":      {"internal/kernel", "internal/text", "internal/uwsgiconf", "remediate/facts"},
		"internal/kernel":     {"internal/bounded"},
		"internal/bounded":    {},
		"internal/lookup":     {},
		"remediate":           {"internal/text", "matcher", "remediate/advice", "remediate/diagnose", "remediate/facts"},
		"remediate/advice":    {"remediate/facts"},
		"remediate/diagnose":  {"internal/text", "matcher", "remediate/advice", "remediate/facts"},
		"remediate/facts":     {"internal/text", "matcher"},
		"internal/config":     {"internal/bounded", "internal/text", "remediate"},
		"internal/jsonscan":   {},
		"internal/sysctld":    {"internal/text"},
		"internal/text":       {},
		"internal/exposition": {},
		"internal/trail":      {"internal/bounded", "internal/text", "remediate"},
		"internal/uwsgiconf":  {},
		"matcher":             {"internal/jsonscan"},
		"systemd":             {"internal/bounded", "internal/text"},
		"tailer":              {},
		"tailer/bulk":         {"internal/bounded"},
		"tailer/file":         {"internal/bounded", "tailer"},
		"tailer/journal":      {"internal/bounded", "internal/jsonscan", "tailer"},
	}
	out, err := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}} {{.Dir}} {{join .Imports " "}}`, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	only := []struct {
		what     *regexp.Regexp
		packages []string
	}{
		{regexp.MustCompile(`unix\.(?:Pidfd\w+|Setns)\(|"/proc/sys/|kernel\.SysctlDir`), []string{"internal/apply", "internal/kernel"}},
		// Signal 0 only tries the right.
		{regexp.MustCompile(`unix\.(?:Ptrace\w+|Unshare|Listen|Kill|Tgkill|PidfdSendSignal\(\w+, [^0])|syscall\.Kill\(`), []string{"internal/apply"}},
	}
	// Strangers' files are read through package bounded. These read none:
	reads := regexp.MustCompile(`\b(?:os\.(?:Open|OpenFile|ReadFile|ReadDir|DirFS|Root\w*|OpenRoot)|ioutil\.\w+|filepath\.(?:Glob|Walk|WalkDir)|\w+\.Read[Dd]ir(?:names)?)\(`)
	bare := map[string]string{
		"internal/bounded": "it is the way",
		"internal/kernel":  "descriptors of /proc/PID and files of /proc/net, which the kernel alone writes; their text is bounded by kernel.buffer",
		"internal/apply":   "kernel parameters, for writing",
		"internal/sysctld": "the io/fs that it is given, which is bounded.FS",
		"systemd":          "the io/fs that it is given, which is bounded.FS",
		"tailer/bulk":      "what the user of a scan names, with his own rights: FIFOs and devices too",
	}
	looks := []string{"internal/deploy", "internal/host", "internal/kernel", "internal/lookup", "internal/uwsgi"}
	writes := regexp.MustCompile(`os\.(?:Create|WriteFile|Mkdir|Remove|Rename|Chmod|Chown|Chtimes|Truncate|Link|Symlink)|unix\.(?:Mkdir|Mknod|Mkfifo|Unlink|Rename|Link|Symlink|Write|Pwrite|Futimes|Fchmod|Fchown|Prctl|Mount)`)
	system := regexp.MustCompile(`^(?:os|net|syscall)(?:$|/)|^golang\.org/x/sys/`)
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name, ours := strings.CutPrefix(fields[0], "qwatch/")
		if !ours {
			continue
		}
		seen++
		allowed, known := may[name]
		if !known {
			t.Errorf("package %s has no layer", name)
		}
		for _, path := range fields[2:] {
			if below, ours := strings.CutPrefix(path, "qwatch/"); ours && !slices.Contains(allowed, below) {
				t.Errorf("%s imports %s", name, below)
			}
			if (name == "remediate" || strings.HasPrefix(name, "remediate/")) && system.MatchString(path) && path != "net/netip" {
				t.Errorf("%s imports %s: decisions are made from values alone", name, path)
			}
		}
		files, err := filepath.Glob(filepath.Join(fields[1], "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, o := range only {
				if found := o.what.Find(text); found != nil && !slices.Contains(o.packages, name) {
					t.Errorf("%s has %s, which is for %s", file, found, strings.Join(o.packages, " and "))
				}
			}
			if found := reads.Find(text); found != nil && bare[name] == "" {
				t.Errorf("%s has %s: what a stranger may own is read through package bounded", file, found)
			}
			if found := writes.Find(text); found != nil && slices.Contains(looks, name) {
				t.Errorf("%s has %s, and only looks", file, found)
			}
		}
	}
	if seen != len(may) {
		t.Errorf("%d packages found, want %d", seen, len(may))
	}
}
