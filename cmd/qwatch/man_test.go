package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"qwatch/internal/config"
	"qwatch/internal/testbed"
)

func manualPage(t *testing.T) string {
	t.Helper()
	var out, errs bytes.Buffer
	e := env{strings.NewReader(""), &out, &errs, func(string) string { return "" }}
	if status := run(t.Context(), e, []string{"man"}); status != 0 {
		t.Fatalf("qwatch man: status %d: %s", status, errs.String())
	}
	return out.String()
}

// TestManualNamesCommands holds the generated part to the commands' help.
func TestManualNamesCommands(t *testing.T) {
	page := manualPage(t)
	for _, want := range []string{
		`.SS "qwatch run"`, `.SS "qwatch scan [flags] FILE`, `\fB\-\-dry\-run\fR`, `\fB\-c\fR, \fB\-\-config\fR \fIfile\fR`,
		".SH \"EXIT STATUS\"",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, manualCommands) || strings.Contains(page, "qwatch man") {
		t.Error("the page shows its own machinery")
	}
}

// TestManualNamesKeys finds every key of the default configuration, by its
// table, in qwatch.toml(5).
func TestManualNamesKeys(t *testing.T) {
	page, err := os.ReadFile("../../systemd/qwatch.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for part := range strings.SplitSeq(string(page), "\n.SH ") {
		name, text, _ := strings.Cut(part, "\n")
		sections[strings.Trim(name, `"`)] = text
	}
	section := "AT THE TOP"
	key := regexp.MustCompile(`^(?:# )?"?([a-z][a-z_.0-9]*)"? +=|^(\[.*\])$|^# (\[\[source\]\])$`)
	found := 0
	for line := range strings.Lines(string(config.Example)) {
		m := key.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		if table := m[2] + m[3]; table != "" {
			section = table
			continue
		}
		found++
		if !regexp.MustCompile(`\.BR? .*\b` + regexp.QuoteMeta(m[1]) + `\b|\.I ` + regexp.QuoteMeta(m[1]) + `\n`).MatchString(sections[section]) {
			t.Errorf("section %s lacks %s", section, m[1])
		}
	}
	if found < 30 {
		t.Errorf("only %d keys found in the example", found)
	}
}

// TestManualsRender lets man read both pages; it warns of what it cannot show.
func TestManualsRender(t *testing.T) {
	testbed.Needs(t, "man")
	toml, err := os.ReadFile("../../systemd/qwatch.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	for name, page := range map[string]string{"qwatch.1": manualPage(t), "qwatch.toml.5": string(toml)} {
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", "-")
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=t")
		cmd.Stdin = strings.NewReader(page)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Run(); err != nil || errs.Len() > 0 {
			t.Errorf("%s: %v %s", name, err, errs.String())
		}
	}
}
