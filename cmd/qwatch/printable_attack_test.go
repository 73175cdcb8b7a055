package main

import (
	"bytes"
	"strings"
	"testing"
)

// A log may hold a record whose name would clear the screen, or add lines that
// qwatch never wrote.
func TestScanPrintsNoControlCharacters(t *testing.T) {
	log := "*** uWSGI listen queue of socket \"\x1b[2J\x1b]0;owned\a\u009b31m\r:5000\" (fd: 3) full !!! (129/128) ***\n"
	for _, format := range []string{"text", "json"} {
		var out, errs bytes.Buffer
		e := env{strings.NewReader(log), &out, &errs, func(string) string { return "" }}
		if status := run(t.Context(), e, []string{"scan", "--format", format, "-"}); status != 0 {
			t.Fatalf("%s: exit status %d: %s", format, status, errs.String())
		}
		if !strings.Contains(out.String(), "owned") {
			t.Errorf("%s: the record is missing:\n%q", format, out.String())
		}
		if i := strings.IndexAny(out.String()+errs.String(), "\x1b\a\r\u009b"); i >= 0 {
			t.Errorf("%s: control characters:\n%q", format, out.String())
		}
	}
}
