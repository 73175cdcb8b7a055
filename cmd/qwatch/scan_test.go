package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"qwatch/matcher"
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

// A log may name any number of sockets, and have incidents without end.
func TestScanBounded(t *testing.T) {
	s := scanner{report: scanReport{}, sockets: map[[2]string]*scanSocket{}}
	book := matcher.NewBook(time.Minute, time.Minute, 3)
	for i := range maxScanSockets + 5 {
		s.add(book, matcher.Hit{Source: "a.log", Socket: fmt.Sprint(i)})
	}
	for range maxScanIncidents + 7 {
		s.collect([]matcher.Incident{{Key: "a.log\x000"}})
	}
	if len(s.sockets) != maxScanSockets || *s.report.LeftOut != (scanLeftOut{5, 7}) || s.report.Hits != maxScanSockets+5 {
		t.Errorf("%d sockets, %+v", len(s.sockets), s.report.LeftOut)
	}
	var b strings.Builder
	s.report.print(&b)
	if !strings.Contains(b.String(), "left out: 5 records of further sockets, and 7 incidents\n") {
		t.Errorf("%s", b.String()[b.Len()-200:])
	}
}
