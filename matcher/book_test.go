package matcher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// story tells what a Book with window 30 s, quiet 60 s and threshold 3 does.
// A step is "KEY DATE [NOW]", "expire NOW", or "end".
func story(steps ...string) string {
	b := NewBook(30*time.Second, time.Minute, 3)
	var out strings.Builder
	tell := func(what string, i Incident) {
		fmt.Fprintf(&out, "%s %s %v-%v hits %d peak %d limit %d\n", what, i.Key,
			i.First.Sub(start).Seconds(), i.Last.Sub(start).Seconds(), i.Hits, i.Peak, i.Limit)
	}
	for _, step := range steps {
		var key string
		var date, now float64
		n, _ := fmt.Sscan(step, &key, &date, &now)
		if n < 3 {
			now = date
		}
		switch key {
		case "expire":
			for _, i := range b.Expire(at(now)) {
				tell("closed", i)
			}
		case "end":
			for _, i := range b.CloseAll() {
				tell("closed", i)
			}
		default:
			h := Hit{Socket: key, At: at(date), Length: 100 + int(now), Limit: 100}
			if strings.HasPrefix(key, "garbage") {
				h.Length, h.Limit, h.Garbage = 1<<30, 64, true
			}
			if i, e := b.Add(key, h, at(now)); e != Pending {
				tell(e.String(), i)
			}
		}
	}
	if due, ok := b.Next(); ok {
		fmt.Fprintf(&out, "next %v\n", due.Sub(start).Seconds())
	}
	return out.String()
}

func TestBook(t *testing.T) {
	tests := []struct {
		name  string
		steps []string
		want  string
	}{
		{"too few", []string{"a 0", "a 1", "expire 100", "end"}, ""},
		{"too slow", []string{"a 0", "a 20", "a 40", "a 60"}, ""},
		{"just within the window", []string{"a 0", "a 15", "a 30"}, "opened a 0-30 hits 3 peak 130 limit 100\nnext 90\n"},
		{"the window slides", []string{"a 0", "a 20", "a 40", "a 41"}, "opened a 20-41 hits 3 peak 141 limit 100\nnext 101\n"},
		{"at the same instant", []string{"a 0", "a 0", "a 0"}, "opened a 0-0 hits 3 peak 100 limit 100\nnext 60\n"},
		{"sockets apart", []string{"a 0", "b 1", "a 2", "b 3"}, ""},
		{"updated, then quiet", []string{"a 0", "a 1", "a 2", "a 62", "expire 121.9", "expire 122", "end"},
			"opened a 0-2 hits 3 peak 102 limit 100\nupdated a 0-62 hits 4 peak 162 limit 100\nclosed a 0-62 hits 4 peak 162 limit 100\n"},
		{"a gap in the dates", []string{"a 0", "a 1", "a 2", "a 62.1", "a 63", "a 64", "end"},
			"opened a 0-2 hits 3 peak 102 limit 100\nopened a 62.1-64 hits 3 peak 164 limit 100\nclosed a 0-2 hits 3 peak 102 limit 100\nclosed a 62.1-64 hits 3 peak 164 limit 100\n"},
		{"a gap is due at once", []string{"a 0", "a 1", "a 2", "a 100"}, "opened a 0-2 hits 3 peak 102 limit 100\nnext 62\n"},
		{"dates hours off", []string{"a -7200 0", "a -7199 1", "a -7198 2", "expire 61", "expire 62"},
			"opened a -7200--7198 hits 3 peak 102 limit 100\nclosed a -7200--7198 hits 3 peak 102 limit 100\n"},
		{"out of order", []string{"a 5", "a 0", "a 3"}, "opened a 0-5 hits 3 peak 105 limit 100\nnext 63\n"},
		{"clock set back, pending", []string{"a 3600 0", "a 3601 1", "a 2 2", "a 3 3", "a 4 4"}, "opened a 2-4 hits 3 peak 104 limit 100\nnext 64\n"},
		{"clock set back, open", []string{"a 3600 0", "a 3601 1", "a 3602 2", "a 3 3", "expire 63"},
			"opened a 3600-3602 hits 3 peak 102 limit 100\nupdated a 3600-3602 hits 4 peak 103 limit 100\nclosed a 3600-3602 hits 4 peak 103 limit 100\n"},
		{"garbage", []string{"garbage 0", "garbage 1", "garbage 2"}, "opened garbage 0-2 hits 3 peak 0 limit 0\nnext 62\n"},
		{"next is the earliest", []string{"a 0", "a 0", "a 0", "b 5", "b 5", "b 5", "a 9"},
			"opened a 0-0 hits 3 peak 100 limit 100\nopened b 5-5 hits 3 peak 105 limit 100\nupdated a 0-9 hits 4 peak 109 limit 100\nnext 65\n"},
		{"closed in order", []string{"b 1", "b 1", "b 1", "a 1", "a 1", "a 1", "c 0", "c 0", "c 0", "end"},
			"opened b 1-1 hits 3 peak 101 limit 100\nopened a 1-1 hits 3 peak 101 limit 100\nopened c 0-0 hits 3 peak 100 limit 100\n" +
				"closed c 0-0 hits 3 peak 100 limit 100\nclosed a 1-1 hits 3 peak 101 limit 100\nclosed b 1-1 hits 3 peak 101 limit 100\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, story(tt.steps...)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestBookBounded(t *testing.T) {
	b := NewBook(30*time.Second, time.Minute, 2)
	h := Hit{At: start}
	b.Add("real", h, start)
	if _, e := b.Add("real", h, start); e != Opened {
		t.Fatalf("real: %v, want opened", e)
	}
	for i := range 3 * maxKeys {
		b.Add(fmt.Sprint("forged", i), h, start)
	}
	if got, want := len(b.pending), maxKeys; got != want || b.touched.Len() != want {
		t.Errorf("%d pending, want %d", got, want)
	}
	// The newest are kept.
	if _, e := b.Add(fmt.Sprint("forged", 3*maxKeys-1), h, start); e != Opened {
		t.Errorf("the newest pending: %v, want opened", e)
	}
	for i := range 2 * maxKeys {
		b.Add(fmt.Sprint("again", i), h, start)
		b.Add(fmt.Sprint("again", i), h, start)
	}
	if got := len(b.open); got != maxKeys {
		t.Errorf("%d open, want %d", got, maxKeys)
	}
	if _, e := b.Add("real", h, start); e != Updated {
		t.Errorf("real: %v, want updated: an open incident is never dropped", e)
	}
}

func TestIncidentID(t *testing.T) {
	open := func(key string, first float64) string {
		b := NewBook(time.Second, time.Minute, 1)
		i, _ := b.Add(key, Hit{At: at(first)}, start)
		return i.ID
	}
	if got, want := open("127.0.0.1:5000", 0), "inc-"; !strings.HasPrefix(got, want) || len(got) != 12 {
		t.Errorf("%q, want %q and 8 hex digits", got, want)
	}
	if first, again := open("a", 0), open("a", 0); first != again {
		t.Error("same key and time, different IDs")
	}
	if open("a", 0) == open("b", 0) || open("a", 0) == open("a", 1) {
		t.Error("different incidents, same ID")
	}
}

func TestBookKeepsTheTouched(t *testing.T) {
	b := NewBook(30*time.Second, time.Minute, 3)
	event := Pending
	for i := range 3 {
		_, event = b.Add("slow", Hit{At: start}, start)
		for j := range maxKeys - 1 {
			b.Add(fmt.Sprint("forged", i, j), Hit{At: start}, start)
		}
	}
	if event != Opened {
		t.Errorf("the third hit: %v, want opened: only the keys not hit for longest are dropped", event)
	}
}
