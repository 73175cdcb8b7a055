package matcher

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDate(t *testing.T) {
	// Sunday, three hours east.
	meta := Meta{Read: time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC), Location: time.FixedZone("", 3*3600)}
	const none = ""
	tests := []struct {
		text string
		want string // in UTC; "" for a shape without a moment
		rank rank
	}{
		{"Sun Nov 22 13:45:46 2026", "2026-11-22T10:45:46Z", ctime},
		{"Sun Nov  2 13:45:46 2026", "2026-11-02T10:45:46Z", ctime},
		{"Sun Nov 2 13:45:46 2026", "2026-11-02T10:45:46Z", ctime},
		{"Sun Nov 22 13:45:46 CET 2026", "2026-11-22T10:45:46Z", ctime},
		{"Sun Nov 22 13:45:46 UTC 2026", "2026-11-22T13:45:46Z", zoned},
		{"Sun Nov 22 13:45:46 +0100 2026", "2026-11-22T12:45:46Z", zoned},
		{"[Sun Nov 22 13:45:46 2026]", "2026-11-22T10:45:46Z", ctime},
		{"Sunday, November 22, 2026 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"Sun 22 Nov 2026 01:45:46 PM UTC", "2026-11-22T13:45:46Z", zoned},
		{"Sun 22 Nov 2026 12:45:46 AM UTC", "2026-11-22T00:45:46Z", zoned},
		{"Sun, 22 Nov 2026 13:45:46 GMT", "2026-11-22T13:45:46Z", zoned},
		{"Sun 22 Nov 13:45:46 2026", "2026-11-22T10:45:46Z", ctime},
		{"Sun 2026-11-22 13:45:46 UTC", "2026-11-22T13:45:46Z", zoned},
		{"Sun 2026-11-22 13:45:46 CET", "2026-11-22T10:45:46Z", naive},
		{"Nov 22 13:45:46", "2026-11-22T10:45:46Z", noYear},
		{"Nov 22 13:45:46.123456", "2026-11-22T10:45:46.123456Z", noYear},
		{"Nov 23 13:45:46", "2026-11-23T10:45:46Z", noYear}, // within a day
		{"Nov 24 13:45:46", "2025-11-24T10:45:46Z", noYear},
		{"Dec 31 23:59:59", "2025-12-31T20:59:59Z", noYear},
		{"Nov 22 2026 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"2026-11-22 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"2026-11-22 13:45", "2026-11-22T10:45:00Z", naive},
		{"2026-11-22 13:45:46,123", "2026-11-22T10:45:46.123Z", naive},
		{"2026/11/22 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"20261122T134546Z", "2026-11-22T13:45:46Z", zoned},
		{"2026-11-22T13:45:46Z", "2026-11-22T13:45:46Z", zoned},
		{"2026-11-22T13:45:46.123456789-03:30", "2026-11-22T17:15:46.123456789Z", zoned},
		{"2026-11-22T13:45:46+0100", "2026-11-22T12:45:46Z", zoned},
		{"2026-11-22T13:45:46+01", "2026-11-22T12:45:46Z", zoned},
		{"2026-11-22 13:45:46.5 +0100 CET", "2026-11-22T12:45:46.5Z", zoned},
		{"[22/Nov/2026:13:45:46 +0000]", "2026-11-22T13:45:46Z", zoned},
		{"22-Nov-2026 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"22.11.2026 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"22/11/2026 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"11/22/26 13:45:46", "2026-11-22T10:45:46Z", naive},
		{"11/22/2026 01:45:46 pm", "2026-11-22T10:45:46Z", naive},
		{"2026-11-22_13:45:46 +0100 UTC", "2026-11-22T13:45:46Z", zoned},
		{"03/04/2026 13:45:46", none, shapeOnly},
		{"13:45:46", none, shapeOnly},
		{"2026-11-22", none, shapeOnly},
		{"[   12.345678]", none, shapeOnly},
		{"1795355146", "2026-11-22T13:45:46Z", zoned},
		{"[1795355146.5]", "2026-11-22T13:45:46.5Z", zoned},
		{"1795355146123", "2026-11-22T13:45:46.123Z", zoned},
		{"1795355146123456", "2026-11-22T13:45:46.123456Z", zoned},
		{"1795355146123456789", "2026-11-22T13:45:46.123456789Z", zoned},
	}
	for _, tt := range tests {
		for _, frame := range []string{"%s", "%s\t", "[%s]", "( %s)", "<\t%s>"} {
			if strings.HasPrefix(tt.text, "[") && frame[0] != '%' {
				continue
			}
			text := fmt.Sprintf(frame, tt.text)
			s, rest, ok := date([]byte(text+" x"), meta)
			if !ok || strings.TrimSpace(string(rest)) != "x" {
				t.Errorf("%q: %v, rest %q", text, ok, rest)
				continue
			}
			got := none
			if !s.time.IsZero() {
				got = s.time.UTC().Format(time.RFC3339Nano)
			}
			if got != tt.want || s.rank != tt.rank {
				t.Errorf("%q: %q rank %d, want %q rank %d", text, got, s.rank, tt.want, tt.rank)
			}
		}
	}
	for _, text := range []string{
		"", "x", "Sun", "Sun Nov", "Sun Nov 22", "Nov 22", "42", "2026", "2026-13-01", "2026-11-32", "25:00:00", "12:60:00",
		"13:45:46x", "[13:45:46", "13:45:46]", "12345", "123456789012", "[12.5", "12.5", "[22.11", "Nov 00 13:45:46", "Nov 32 13:45:46", "Nov 22 1969 13:45:46", "13:45:4",
		"2026-11-22T13:45:46+1500x", "9999999999", "Foo Nov 22 13:45:46 2026", "2026-11/22 13:45:46",
	} {
		if _, rest, ok := date([]byte(text), meta); ok {
			t.Errorf("%q is a date, rest %q", text, rest)
		}
	}
}
