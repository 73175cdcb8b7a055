package main

import (
	"strings"
	"testing"

	"qwatch/remediate"
)

// What strangers call their things begins no line of its own.
func TestForeignLines(t *testing.T) {
	const forged = "app\n127.0.0.1:80  fine\r\x1b[2J"
	var b strings.Builder
	report := doctorReport{Report: remediate.Report{
		Problems: []string{forged}, Unseen: []string{forged}, HiddenOwners: forged,
		Sockets: []remediate.QueueReport{{Socket: forged, Unit: new(string), ConfiguredAt: new(string), Configured: new(int), Reasons: []string{forged}, Advice: []string{forged}}},
	}}
	*report.Sockets[0].Unit, *report.Sockets[0].ConfiguredAt = forged, forged
	if err := printReport(&b, report); err != nil {
		t.Fatal(err)
	}
	b.WriteString(oneRow(forged + "\t" + forged + "\n"))
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "127.0.0.1:80") {
			t.Errorf("a line of a stranger's:\n%s", b.String())
		}
	}
}
