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
// daemon does not know the host, package host alone reaches into other
// processes, namespaces and /proc/sys, and what decides knows no operating
// system.
func TestLayers(t *testing.T) {
	may := map[string][]string{
		"cmd/qwatch":         {"internal/config", "internal/daemon", "internal/host", "internal/text", "internal/trail", "matcher", "remediate", "remediate/diagnose", "remediate/facts", "systemd", "tailer/bulk"},
		"internal/daemon":    {"internal/config", "internal/text", "matcher", "remediate", "remediate/diagnose", "remediate/facts", "systemd", "tailer", "tailer/file", "tailer/journal"},
		"internal/host":      {"internal/sysctld", "internal/uwsgiconf", "remediate", "remediate/facts", "systemd"},
		"remediate":          {"matcher", "remediate/advice", "remediate/diagnose", "remediate/facts"},
		"remediate/advice":   {"remediate/facts"},
		"remediate/diagnose": {"matcher", "remediate/advice", "remediate/facts"},
		"remediate/facts":    {"internal/text", "matcher"},
		"internal/config":    {"internal/text", "remediate"},
		"internal/jsonscan":  {},
		"internal/sysctld":   {"internal/text"},
		"internal/text":      {},
		"internal/trail":     {"internal/text", "remediate"},
		"internal/uwsgiconf": {},
		"matcher":            {"internal/jsonscan"},
		"systemd":            {"internal/text"},
		"tailer":             {},
		"tailer/bulk":        {},
		"tailer/file":        {"tailer"},
		"tailer/journal":     {"internal/jsonscan", "tailer"},
	}
	out, err := exec.Command("go", "list", "-deps", "-f", `{{.ImportPath}} {{.Dir}} {{join .Imports " "}}`, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	reaches := regexp.MustCompile(`unix\.(?:Pidfd\w+|Ptrace\w+|Setns|Unshare|Listen|Kill|Tgkill)\(|syscall\.Kill\(|"/proc/sys/`)
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
			if found := reaches.Find(text); found != nil && name != "internal/host" && !strings.HasSuffix(file, "_test.go") {
				t.Errorf("%s has %s, which is for package host", file, found)
			}
		}
	}
	if seen != len(may) {
		t.Errorf("%d packages found, want %d", seen, len(may))
	}
}
