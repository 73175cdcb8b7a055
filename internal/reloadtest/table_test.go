//go:build reloadtest

package reloadtest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	document = "../../docs/reload.md"
	begin    = "<!-- reload-test writes from here -->\n"
	end      = "<!-- to here -->\n"
	// writeEnv has the table written, by a run of every mode.
	writeEnv = "WRITE"
)

// table gathers the rows.
type table struct {
	mu   sync.Mutex
	rows map[string]row
}

// row is one of the table: what must be as the document has it, each with all
// that was seen of several scenes, and the figure.
type row struct {
	outcome []string
	longest time.Duration
}

const either = " or "

// with is both rows in one.
func (r row) with(another row) row {
	if r.outcome == nil {
		return another
	}
	r.outcome = slices.Clone(r.outcome)
	for i, seen := range another.outcome {
		if !slices.Contains(strings.Split(r.outcome[i], either), seen) {
			r.outcome[i] += either + seen
		}
	}
	r.longest = max(r.longest, another.longest)
	return r
}

const head = "| mode | the reload | the request in flight | other apps | judged | longest without an answer |\n|--|--|--|--|--|--|\n"

func (r row) line(m mode) string {
	return fmt.Sprintf("| %s | %s | %.0f s |\n", m.title(), strings.Join(r.outcome, " | "), r.longest.Seconds())
}

func (m mode) title() string {
	if m.says == "" {
		return m.name
	}
	return m.name + ": " + m.says
}

// add checks a scene and keeps its row.
func (tab *table) add(t *testing.T, m mode, r result) {
	t.Helper()
	r.check(t, m)
	if t.Failed() {
		r.logs(t)
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if tab.rows == nil {
		tab.rows = map[string]row{}
	}
	tab.rows[m.name] = tab.rows[m.name].with(r.row(m))
}

func (r result) row(m mode) row {
	outcome := []string{"refused: " + m.want.refused, r.slow(), "–", "–"}
	if e, ok := r.final("reload"); ok {
		outcome[0] = "`" + e.Way + "`"
		if e.Result != "applied" {
			outcome[0] += ", " + e.Result
		} else if e.Late {
			outcome[0] += ", applied late"
		}
	}
	if len(m.others) > 0 {
		outcome[2] = "untouched"
		for addr, pids := range r.Others[0] {
			if fmt.Sprint(pids) != fmt.Sprint(r.Others[1][addr]) {
				outcome[2] = "touched"
			}
		}
	}
	if j, ok := r.final("judge"); ok {
		outcome[3] = j.Result
	}
	gap, _ := r.Answers.Longest(r.Ended)
	return row{outcome, gap}
}

// compare holds the document to what was seen, or writes it.
func (tab *table) compare(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte(begin))
	old, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("%s has no markers %q and %q", document, begin, end)
	}
	if os.Getenv(writeEnv) != "" {
		if !full || t.Failed() {
			t.Fatalf("%s is written by a run of every mode (FULL=1) that passes", document)
		}
		var b bytes.Buffer
		b.Write(before)
		b.WriteString(begin + head)
		for _, m := range everything() {
			b.WriteString(tab.rows[m.name].line(m))
		}
		b.WriteString(end)
		b.Write(after)
		if err := os.WriteFile(document, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if rows := max(0, strings.Count(string(old), "\n")-strings.Count(head, "\n")); rows != len(everything()) {
		t.Errorf("%s has %d modes, and there are %d (make reload-test FULL=1 WRITE=1 writes it)", document, rows, len(everything()))
	}
	for _, m := range everything() {
		if r, seen := tab.rows[m.name]; seen && !r.in(string(old), m) {
			t.Errorf("%s has not what was seen: %s(make reload-test FULL=1 WRITE=1 writes it)", document, r.line(m))
		}
	}
}

// in tells whether a table has the row, figures aside.
func (r row) in(table string, m mode) bool {
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if cells[0] != m.title() || len(cells) != len(r.outcome)+2 {
			continue
		}
		for i, seen := range r.outcome {
			for one := range strings.SplitSeq(seen, either) {
				if !slices.Contains(strings.Split(cells[i+1], either), one) {
					return false
				}
			}
		}
		return true
	}
	return false
}
