package apply

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"qwatch/internal/kernel"
	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// Follow hands over what a unit logs to the journal from now on, until ctx ends;
// each text is one entry. ready is closed when nothing is missed any more.
type Follow func(ctx context.Context, unit string, entry func(text []byte)) (ready <-chan struct{}, err error)

const (
	// maxLogs is how many of a master's open files are read, maxAdded how much
	// of one at a time, and maxPrior what of it is from before.
	maxLogs  = 8
	maxAdded = 1 << 20
	maxPrior = 64 << 10
	// readEvery is how often is read what was added, reopenEvery how often new
	// files are looked for: the exec of a reload opens its log anew.
	readEvery   = 100 * time.Millisecond
	reopenEvery = time.Second
	// maxSpeakers bounds of how many processes the words are kept.
	maxSpeakers = 4096
)

// words are what one uWSGI says from some moment on, by who says it: the process
// that a line names, 0 for none. Its own goroutine reads, as a file system may
// hang.
type words struct {
	// shared says that other uWSGIs may write to the same log: of a line that
	// names no process it is not known whose it is.
	shared bool

	mu          sync.Mutex
	said, prior map[int]facts.Words // since that moment, and from before
}

func newWords(shared bool) *words {
	return &words{shared: shared, said: map[int]facts.Words{}, prior: map[int]facts.Words{}}
}

func (w *words) hear(into map[int]facts.Words, text []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	matcher.ScanWords(text, matcher.Meta{}, func(word matcher.Word) {
		of, known := into[word.PID]
		if !known && len(into) >= maxSpeakers {
			return
		}
		of.Add(word)
		into[word.PID] = of
	})
}

// of are the words of these processes, of all that is in one of the maps.
func (w *words) of(pids map[int]bool, in map[int]facts.Words) (said facts.Words) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for pid, some := range in {
		switch {
		case !w.shared || pids[pid]:
			said.Join(some)
		case pid == 0: // of some loaders uWSGI does not say in which process
			n := some.Of[matcher.WordReady]
			said.Join(facts.Words{Of: map[matcher.MarkKind]int{matcher.WordReady: n}, Took: some.Took})
		}
	}
	return said
}

// tail is a file that grows.
type tail struct {
	kernel.OpenFile
	at   int64
	read int64 // so far without the end of a line
}

// added is what was added in whole lines, and no more than maxAdded of it.
func (t *tail) added() []byte {
	info, err := t.Stat()
	switch {
	case err != nil || info.Size() == t.at:
		return nil
	case info.Size() < t.at: // truncated (copytruncate)
		t.at, t.read = 0, 0
	case info.Size()-t.at > maxAdded:
		t.at = info.Size() - maxAdded
	}
	if size := info.Size(); t.read > maxPrior && size < t.at+2*t.read && size-t.at < maxAdded {
		return nil // a line that does not end is read again when it is twice as long
	}
	text, err := io.ReadAll(io.NewSectionReader(t, t.at, min(info.Size()-t.at, maxAdded)))
	if err != nil {
		return nil
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	switch t.read = int64(len(text) - len(whole)); {
	case len(whole) == 0 && len(text) == maxAdded: // no line of uWSGI's
		t.at, t.read = t.at+int64(len(text)), 0
	default:
		t.at += int64(len(whole))
	}
	return whole
}

// hearFiles reads the files that open opens, from now on. It returns when they are
// open; the reading ends with ctx.
func (w *words) hearFiles(ctx context.Context, open func() ([]kernel.OpenFile, error)) error {
	opened := make(chan error, 1)
	go func() {
		tails, err := w.openTails(open, nil, true)
		defer func() {
			for _, t := range tails {
				t.Close()
			}
		}()
		if err == nil && len(tails) == 0 {
			err = errors.New("it writes to no regular file")
		}
		if opened <- err; err != nil {
			return
		}
		tick := time.NewTicker(readEvery)
		defer tick.Stop()
		for again := time.Now(); ; {
			for _, t := range tails {
				if text := t.added(); len(text) > 0 {
					w.hear(w.said, text)
				}
			}
			if time.Since(again) > reopenEvery {
				again = time.Now()
				tails, _ = w.openTails(open, tails, false)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	select {
	case err := <-opened:
		return err
	case <-time.After(fileDeadline):
		return errors.New("it could not be opened in time")
	}
}

// openTails opens what is not among tails yet. atEnd says that what is in it
// already is from before.
func (w *words) openTails(open func() ([]kernel.OpenFile, error), tails []*tail, atEnd bool) ([]*tail, error) {
	files, err := open()
	for _, f := range files {
		known := len(tails) >= 2*maxLogs
		for _, t := range tails {
			known = known || t.FileID == f.FileID
		}
		if known {
			f.Close()
			continue
		}
		t := &tail{OpenFile: f}
		if info, err := f.Stat(); err == nil && atEnd {
			before := make([]byte, min(info.Size(), maxPrior))
			if n, err := f.ReadAt(before, info.Size()-int64(len(before))); err == nil || errors.Is(err, io.EOF) {
				w.hear(w.prior, before[:n])
			}
			t.at = info.Size()
		}
		tails = append(tails, t)
	}
	return tails, err
}

// hearJournal follows the journal of the unit, from now on.
func (w *words) hearJournal(ctx context.Context, follow Follow, unit string) error {
	if follow == nil {
		return errors.New("the journal cannot be read here")
	}
	ready, err := follow(ctx, unit, func(text []byte) { w.hear(w.said, append(text[:len(text):len(text)], '\n')) })
	if err != nil {
		return err
	}
	select {
	case <-ready:
		return nil
	case <-time.After(journalDeadline):
		return errors.New("the journal could not be followed in time")
	}
}

// journalDeadline is how long journalctl may take to start.
const journalDeadline = 5 * time.Second

// sharesLog reports whether another uWSGI, neither of this tree nor its emperor,
// may write to the same log.
func (a *Applier) sharesLog(netns *kernel.NetNS, master facts.Process, sight facts.Sight) bool {
	all, _, err := kernel.Processes(a.processes, netns)
	if err != nil {
		return true
	}
	own := map[int]bool{}
	var cgroup string
	emperor := 0
	for _, p := range all {
		if p.PID == master.PID {
			cgroup, emperor = p.Cgroup, p.PPID
		}
		own[p.PID] = p.PID == master.PID || p.PPID == master.PID
	}
	mine := maps.Clone(own)
	for _, p := range all {
		switch {
		case mine[p.PID] || p.PID == emperor:
		case sight.Journal != "" && p.Cgroup == cgroup:
			return true
		case sight.Followed != "": // who else writes to that can be seen of nobody
			return true
		case sight.Files && kernel.SameOutput(p.PID, master.PID):
			return true
		}
	}
	return false
}
