package matcher

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const plainRecord = `Sun Nov 22 13:45:46 2026 - *** uWSGI listen queue of socket ":80" (fd: 3) full !!! (101/100) ***`

// numbers is how the journal prints a message that JSON has no letters for.
func numbers(text, separator string) string {
	var b strings.Builder
	for i, c := range []byte(text) {
		if i > 0 {
			b.WriteString(separator)
		}
		fmt.Fprint(&b, c)
	}
	return b.String()
}

func TestJournalExport(t *testing.T) {
	quiet := `{"__CURSOR":"s=1","MESSAGE":"hello"}` + "\n"
	compact := `{"__CURSOR":"s=2","MESSAGE":[` + numbers(plainRecord+"\r", ",") + `],"_PID":"3"}` + "\n"
	wide := `{ "__CURSOR" : "s=3", "MESSAGE" : [ ` + numbers("\x1b[31m"+plainRecord+"\x1b[0m", ", ") + ` ], "_PID" : "4" }` + "\n"
	quoted, _ := json.Marshal(plainRecord)
	letters := `{"MESSAGE":` + string(quoted) + `,"__CURSOR":"s=4","_PID":"5"}` + "\n"
	own := strings.Replace(compact, `"_PID":"3"`, `"SYSLOG_IDENTIFIER":"qwatch"`, 1)
	prose := `{"__CURSOR":"s=5","MESSAGE":[` + numbers("user said: "+plainRecord, ",") + `]}` + "\n"

	// Whose they are, an export does not say: anybody can write one.
	n := 0
	for _, h := range scan(quiet+compact+own+letters+prose+wide+quiet, Meta{PID: 9, Unit: "real.service"}) {
		if n++; h.PID != 9 || h.Unit != "real.service" {
			t.Errorf("%+v", h)
		}
	}
	if n != 3 {
		t.Errorf("%d records, want 3", n)
	}
	for _, text := range []string{quiet + compact, quiet + letters, wide} {
		if i := next([]byte(text), exported([]byte(text))); i < 0 || strings.Count(text[:i], "\n") != strings.Count(text, "\n")-1 {
			t.Errorf("candidate at %d in %q", i, text)
		}
	}
	if i := next([]byte(quiet), exported([]byte(quiet))); i >= 0 {
		t.Errorf("candidate at %d in %q", i, quiet)
	}
}

func TestContinued(t *testing.T) {
	quoted, _ := json.Marshal(plainRecord)
	object := `{"msg":` + string(quoted) + `}`
	line := strings.Repeat(object, 3)
	for cut := range len(line) {
		n := len(scan(line[:cut], Meta{})) + len(scan(line[cut:], Meta{Continued: true}))
		// Only the object that was cut is lost.
		if want := 2; cut%len(object) != 0 && n != want || cut%len(object) == 0 && n != 3 {
			t.Errorf("cut at %d: %d hits", cut, n)
		}
	}
	if n := len(scan(plainRecord+"\n"+plainRecord, Meta{Continued: true})); n != 1 {
		t.Errorf("the tail of a line and a line: %d hits, want 1", n)
	}
}

func TestOwnUnit(t *testing.T) {
	if hits := scan(plainRecord, Meta{Unit: "qwatch-audit.service"}); hits != nil {
		t.Errorf("qwatch's own unit: %v, want no hits", hits)
	}
}

// TestHostile holds time linear. Anything quadratic would take minutes here.
func TestHostile(t *testing.T) {
	const size = 1 << 20
	began := time.Now()
	for _, part := range []string{
		"!", "!!! (", "full !!! (", "{", "[", `{"a":`, `{"a":"full !!! (`, `{"msg":"full !!! ("}`, `{"msg":"full !!! ("},`,
		`*** uWSGI listen queue of socket "`, "*** uWSGI listen queue of socket \"a\" (fd: 1) full !!! (1/1) *** ",
		"\x1b", "\x1b[31m", "\x1b[0mfull !!! (", "\\", `"`, `\u0022full !!! (`, "Nov 22 13:46:14 ", "2026-11-22 13:46:14 ",
		plainRecord + " ", "a | ", "<30>", "[pod/a/b] ", "x", "x.", "a.info ", "a[1]: ", "web-0 a ", "\\\"]", "full !!! (\n", "*** full !!! (\n", `{"__CURSOR":"MESSAGE":[1,full !!! (`,
	} {
		text := strings.Repeat(part, size/len(part))
		for _, frame := range []string{"%s", "full !!! (%s", "%s *** full !!! (", `{"msg":"%s full !!! (`, `{"msg":"%s full !!! ("}`, `{"__CURSOR":1}` + "\n%s"} {
			scan(fmt.Sprintf(frame, text), Meta{})
		}
		for _, lead := range []string{"", "a.info ", "web-0 ", "2026-11-22T13:46:14Z a b 1 c [", "EVENTS\t1795355174123\t"} {
			line := lead + strings.Repeat(part, (maxPrefix-len(lead))/len(part)) + "*** full !!! (\n"
			scan(strings.Repeat(line, 32), Meta{})
		}
	}
	if d := time.Since(began); d > time.Minute {
		t.Errorf("%v", d)
	}
}

// inJSON is how an encoder writes text.
func inJSON(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

var wrappers = map[string]func(string) string{
	"syslog":      func(s string) string { return "Nov 22 13:45:46 web1 uwsgi[1878]: " + s },
	"RFC 5424":    func(s string) string { return "<30>1 2026-11-22T13:45:46Z web1 uwsgi 1878 - - " + s },
	"compose":     func(s string) string { return "\x1b[36mweb-1  |\x1b[0m " + s },
	"CRI":         func(s string) string { return "2026-11-22T13:45:46.353591152Z stderr F " + s },
	"kubectl":     func(s string) string { return "[pod/web-0/app] " + s },
	"docker -t":   func(s string) string { return "2026-11-22T13:45:46.353591152Z " + s },
	"Docker":      func(s string) string { return `{"log":` + inJSON(s+"\n") + `,"stream":"stderr"}` },
	"encoder":     func(s string) string { return `{"ts":1795355146,"level":"info","msg":` + inJSON(s) + `}` },
	"unknown key": func(s string) string { return `{"zzz":` + inJSON(s) + `}` },
}

func FuzzScan(f *testing.F) {
	for _, file := range []string{"testdata/lines.tsv", "testdata/more.tsv"} {
		for _, r := range rows(f, file) {
			f.Add([]byte(r.line))
		}
	}
	f.Add([]byte(plainRecord + "\n\n" + plainRecord + "\r\nx"))
	f.Add([]byte(`{"a":,"msg":"full !!! ("}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		read := time.Unix(1795355146, 0)
		meta := Meta{Read: read, Location: time.UTC}
		total := len(scan(string(text), meta))
		if total > 0 && next(text, exported(text)) < 0 {
			t.Errorf("%d hits and no candidate in %q", total, text)
		}
		if exported(text) {
			return // what is looked for depends on the first line
		}
		sum := 0
		for line := range bytes.Lines(text) {
			if exported(line) {
				return
			}
			line := string(bytes.TrimRight(line, "\r\n"))
			sum += len(scan(line, meta))
			line = string([]rune(line)) // as in JSON, where a name gets longer by it
			n := len(scan(line, meta))
			if n == 0 || strings.HasPrefix(line, "EVENTS\t") || len(line) > maxPrefix {
				continue
			}
			for name, wrap := range wrappers {
				if got := len(scan(wrap(line), meta)); got != n {
					t.Errorf("%s: %d hits, bare %d, in %q", name, got, n, line)
				}
			}
		}
		if sum != total {
			t.Errorf("%d hits, %d by lines, in %q", total, sum, text)
		}
	})
}

func FuzzDate(f *testing.F) {
	f.Add("Sun Nov 22 13:45:46 2026")
	f.Add("[22/Nov/2026:13:46:14 +0000]")
	f.Add("1795355174.123")
	f.Fuzz(func(t *testing.T, text string) {
		s, rest, ok := date([]byte(text), Meta{Read: time.Unix(1795355146, 0)})
		if ok && len(rest) >= len(text) || !strings.HasSuffix(text, string(rest)) {
			t.Errorf("%q leaves %q", text, rest)
		}
		if ok && s.rank != shapeOnly && (s.time.Year() < 1969 || s.time.Year() > 10000) {
			t.Errorf("%q is %v", text, s.time)
		}
	})
}
