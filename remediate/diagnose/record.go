package diagnose

import (
	"slices"
	"time"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

const (
	// recordSpan is how far back a diagnosis looks.
	recordSpan = time.Minute
	// snapshotsApart is the least time between two snapshots that are kept,
	// which bounds their number.
	snapshotsApart = 2 * time.Second
	keepMarks      = 1024
	keepSamples    = 8192
)

// Record is what was seen of a host in the last minute, bounded whatever comes.
// The zero Record is ready for use, by one goroutine.
type Record struct {
	snapshots []facts.Snapshot
	marks     []matcher.Mark // At is when they were read
	samples   []facts.Sample
}

// AddSnapshot keeps a snapshot.
func (r *Record) AddSnapshot(f facts.Snapshot) {
	r.snapshots = slices.DeleteFunc(r.snapshots, func(old facts.Snapshot) bool { return f.At.Sub(old.At) > recordSpan })
	if n := len(r.snapshots); n == 0 || f.At.Sub(r.snapshots[n-1].At) >= snapshotsApart {
		r.snapshots = append(r.snapshots, f)
	}
}

// AddMark keeps one of uWSGI's lines, read now.
func (r *Record) AddMark(m matcher.Mark, now time.Time) {
	m.At = now
	r.marks = slices.DeleteFunc(r.marks, func(old matcher.Mark) bool { return now.Sub(old.At) > recordSpan })
	if len(r.marks) < keepMarks {
		r.marks = append(r.marks, m)
	}
}

// AddSamples keeps samples, newer than those before.
func (r *Record) AddSamples(samples []facts.Sample, now time.Time) {
	r.samples = append(r.samples, samples...)
	old := 0
	for old < len(r.samples) && now.Sub(r.samples[old].At) > recordSpan {
		old++
	}
	r.samples = slices.Delete(r.samples, 0, max(old, len(r.samples)-keepSamples))
}

// Samples are those that are kept, in the order of time. They are the Record's
// own: only to be read, and only until the next are added.
func (r *Record) Samples() []facts.Sample { return r.samples }

// Since are the samples of Samples that are no older than this moment.
func (r *Record) Since(at time.Time) []facts.Sample {
	i := len(r.samples)
	for i > 0 && !r.samples[i-1].At.Before(at) {
		i--
	}
	return r.samples[i:]
}

// Diagnose says why the queue of a socket of the newest snapshot is full.
// garbage says that its record's numbers cannot be true, and acts what qwatch
// itself did to it.
func (r *Record) Diagnose(newest facts.Snapshot, s facts.Socket, b Bounds, acts Acts, garbage bool) Diagnosis {
	in := Input{Now: Moment{newest.At, newest.Booted, s}, Samples: r.samples, Garbage: garbage, Bounds: b, Acts: acts}
	for _, old := range r.snapshots {
		if before, ok := old.Find(s.ID); ok && old.At.Before(newest.At) {
			in.Earlier = append(in.Earlier, Moment{old.At, old.Booted, before})
		}
	}
	for _, m := range r.marks {
		if s.Wrote(m.Writer, m.Unit, m.Source) {
			in.Marks = append(in.Marks, m)
		}
	}
	return Diagnose(in)
}
