package file

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// checkpoint is the state file.
type checkpoint struct {
	Version int        `json:"version"`
	Saved   time.Time  `json:"saved"`
	Files   []position `json:"files"`
	Late    []late     `json:"late,omitempty"`
}

// position is how far one inode was handed over.
type position struct {
	Path   string `json:"path"`         // the name that it was followed under
	At     string `json:"at,omitempty"` // where it stood, if elsewhere
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Born   int64  `json:"born,omitempty"` // Unix nanoseconds
	Handle []byte `json:"handle,omitempty"`
	Off    int64  `json:"off"`
	Window []byte `json:"window,omitempty"` // the text before Off
	Head   head   `json:"head"`             // how its text begins
	Copy   bool   `json:"copy,omitempty"`   // not read yet: it looks like a copy
	Copied bool   `json:"copied,omitempty"` // a copy whose rest is being read
	done          // of the name

	hung bool // the follower that had it was left behind as it hung
}

// done bounds what of a name's rotated files has been dealt with, in Unix
// nanoseconds.
type done struct {
	Low    int64 `json:"low,omitempty"`    // generations born until then
	Packed int64 `json:"packed,omitempty"` // compressed ones written until then
}

const checkpointVersion = 1

// decodeCheckpoint reads a state file, and refuses one that cannot be true.
func decodeCheckpoint(data []byte) (checkpoint, error) {
	var c checkpoint
	if err := json.Unmarshal(data, &c); err != nil {
		return checkpoint{}, fmt.Errorf("positions: %w", err)
	}
	if c.Version != checkpointVersion {
		return checkpoint{}, fmt.Errorf("positions have version %d, not %d", c.Version, checkpointVersion)
	}
	for i, p := range c.Files {
		if p.Off < 0 || p.Path == "" || len(p.Head.Text) > windowSize || p.Head.At < 0 || len(p.Window) > windowSize || int64(len(p.Window)) > p.Off {
			return checkpoint{}, fmt.Errorf("positions: entry %d (%q) has impossible values", i, p.Path)
		}
	}
	return c, nil
}

func (p position) id() identity {
	return identity{Dev: p.Dev, Ino: p.Ino, Born: p.Born, Handle: string(p.Handle)}
}

func positionOf(in *inode) (p position) {
	p.set(in)
	return p
}

// set makes p that of in, in the memory that it has.
func (p *position) set(in *inode) {
	*p = position{
		Path: in.src.path, Dev: in.id.Dev, Ino: in.id.Ino, Born: in.id.Born, Handle: append(p.Handle[:0], in.id.Handle...),
		Off: in.off, Window: append(p.Window[:0], in.window...), Head: head{in.head.At, append(p.Head.Text[:0], in.head.Text...)},
		Copy: in.copyOf != nil, Copied: in.copied, done: in.src.lineage.done,
	}
	if in.at != p.Path {
		p.At = in.at
	}
}

func (p position) clone() position {
	p.Handle, p.Window, p.Head.Text = slices.Clone(p.Handle), slices.Clone(p.Window), slices.Clone(p.Head.Text)
	return p
}

func (p position) apply(in *inode) {
	in.off, in.window, in.copied = p.Off, slices.Clone(p.Window), p.Copied
	in.head = head{p.Head.At, slices.Clone(p.Head.Text)}
}

// past is what a follower knows from earlier, of this run and the ones before.
type past struct {
	began    time.Time       // when Run was called
	starting bool            // until all files of the first survey are open
	first    bool            // no checkpoint: the very first start
	since    int64           // files born before (Unix ns) are not news
	names    map[string]done // in the checkpoint
}

// stood is when the text of a file was written at the latest, where it was there
// before this start; zero where it has come since.
func (p *past) stood(st facts) time.Time {
	if written := time.Unix(0, st.changed); p.starting || written.Before(p.began) {
		return written
	}
	return time.Time{}
}

// isNews says whether a file that no position is known of is to be read from
// its beginning. A name that was followed has another file now: that is news. A
// name that was not is news only if the file is.
func (p *past) isNews(path string, st facts) bool {
	if !p.starting {
		return true
	}
	_, followed := p.names[path]
	return !p.first && (followed || st.since() >= p.since)
}

// doneWith says what of a name's rotated files earlier runs have dealt with.
func (p *past) doneWith(path string) done {
	if d, ok := p.names[path]; ok {
		return done{d.Low, max(d.Packed, p.since)}
	}
	return done{p.since, p.since}
}

// beforeNow is older than every file that is born from now on. Births come from
// a clock that ticks a few hundred times a second (CLOCK_REALTIME_COARSE).
func beforeNow() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return time.Now().Add(-gatherTime).UnixNano() // longer than a tick
	}
	return now.Nano() - 1
}

// snapshot are the positions of the files that are followed.
func (f *Files) snapshot() []position {
	part := make([]position, 0, len(f.inodes))
	for _, in := range f.inodes {
		part = append(part, positionOf(in))
	}
	return part
}

// saveSoon has the positions written within a second.
func (f *Files) saveSoon() {
	if f.agenda.pending[savePositions] == nil {
		f.agenda.once(savePositions, f.shared.untilSave(), func() { f.shared.put(f, f.snapshot()) })
	}
}
