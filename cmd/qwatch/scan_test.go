package main

import (
	"bytes"
	"strings"
	"testing"
)

// hostile is a name that would clear the screen, set the window's title, add a
// line, turn the text around it and break UTF-8; shown is how it is printed.
const (
	hostile = "\x1b[2J\x1b]0;owned\a\u009b31m\r/run/\u202egol.kcos\xff:5000"
	shown   = "�[2J�]0;owned��31m�/run/�gol.kcos�:5000"
)

// A log may hold a record whose name would clear the screen, or add lines that
// qwatch never wrote.
func TestScanPrintsNoControlCharacters(t *testing.T) {
	log := "*** uWSGI listen queue of socket \"" + hostile + "\" (fd: 3) full !!! (129/128) ***\n"
	for _, format := range []string{"text", "json"} {
		var out, errs bytes.Buffer
		e := env{strings.NewReader(log), &out, &errs, func(string) string { return "" }}
		if status := run(t.Context(), e, []string{"scan", "--format", format, "-"}); status != 0 {
			t.Fatalf("%s: exit status %d: %s", format, status, errs.String())
		}
		if !strings.Contains(out.String(), shown) {
			t.Errorf("%s: the record is missing:\n%q", format, out.String())
		}
		if i := strings.IndexAny(out.String()+errs.String(), "\x1b\a\r\u009b\u202e"); i >= 0 {
			t.Errorf("%s: control characters:\n%q", format, out.String())
		}
	}
}
