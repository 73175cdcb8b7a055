package diagnose

import (
	"testing"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// A record is bounded, whatever comes, and holds the newest minute.
func TestRecordIsBounded(t *testing.T) {
	var r Record
	id := facts.SocketID{NetNS: 1, Inode: 77}
	for i := range 3000 {
		at := now.Add(time.Duration(i) * 100 * time.Millisecond)
		r.AddSnapshot(facts.Snapshot{At: at})
		r.AddMark(matcher.Mark{Kind: matcher.MarkDied}, at)
		r.AddMark(matcher.Mark{Kind: matcher.MarkDied}, at)
		r.AddSamples(make([]facts.Sample, 0), at)
		r.AddSamples([]facts.Sample{{ID: id, At: at, Length: i}}, at)
	}
	if n := len(r.snapshots); n < 25 || n > 31 {
		t.Errorf("%d snapshots of a minute", n)
	}
	if n := len(r.marks); n > keepMarks {
		t.Errorf("%d marks", n)
	}
	if n, last := len(r.Samples()), r.Samples()[len(r.Samples())-1]; n < 600 || n > 601 || last.Length != 2999 {
		t.Errorf("%d samples, the newest %d", n, last.Length)
	}
	at := now.Add(time.Hour)
	r.AddSamples(make([]facts.Sample, 3*keepSamples), at)
	many := make([]facts.Sample, 3*keepSamples)
	for i := range many {
		many[i] = facts.Sample{ID: id, At: at, Length: i}
	}
	r.AddSamples(many, at)
	if n := len(r.Samples()); n != keepSamples || r.Samples()[0].Length != 2*keepSamples {
		t.Errorf("%d samples, the oldest %d", n, r.Samples()[0].Length)
	}
	r.AddMark(matcher.Mark{Kind: matcher.MarkReloaded}, at)
	if len(r.marks) != 1 || !r.marks[0].At.Equal(at) {
		t.Errorf("marks an hour later: %v", r.marks)
	}
}

// A diagnosis takes what is about its socket: earlier moments, and the marks of
// its own uWSGI.
func TestRecordDiagnoses(t *testing.T) {
	in := input(5*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0))
	var r Record
	other := in.Now.Socket
	other.ID.Inode++
	other.Master.PID = 99
	r.AddSnapshot(facts.Snapshot{At: in.Earlier[0].At, Booted: in.Now.Booted, Sockets: []facts.Socket{other, in.Earlier[0].Socket}})
	r.AddSamples(in.Samples, now)
	r.AddMark(matcher.Mark{Kind: matcher.MarkDied, Writer: 10}, now)
	r.AddMark(matcher.Mark{Kind: matcher.MarkTooFast, Writer: 99}, now)
	newest := facts.Snapshot{At: now, Booted: in.Now.Booted, Sockets: []facts.Socket{other, in.Now.Socket}}
	r.AddSnapshot(newest)
	in.Marks = []matcher.Mark{{Kind: matcher.MarkDied, Writer: 10, At: now}}
	if got, want := r.Diagnose(newest, in.Now.Socket, in.Bounds, Acts{}, false).text(), Diagnose(in).text(); got != want || Diagnose(in).Kind != Stall {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
