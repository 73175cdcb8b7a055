// Package tailer holds the words that the followers of logs share. Package
// tailer/file follows files, tailer/journal the systemd journal; both hand
// over whole lines. Package tailer/bulk reads logs that exist.
package tailer

import (
	"context"
	"fmt"
	"time"
)

// Source is something that lines come from, as a task: a file.Files or a
// journal.Journal.
type Source interface {
	fmt.Stringer
	// Run hands lines over until ctx ends, and returns nil then.
	Run(ctx context.Context) error
	// Ready is closed when what is written from now on will be handed over.
	Ready() <-chan struct{}
	// Status may be called at any time.
	Status() []Status
}

// Chunk is a run of whole lines from one source, in the order in which they
// were written. It is handed over as one piece so that a reader who looks for
// one rare line need not look at every line.
type Chunk struct {
	// Source names where the text came from: a file's path, or
	// "journal:UNIT".
	Source string
	// Name is the Status.Name under which the text is counted: the file's
	// path, or the journal's unit pattern.
	Name string
	// Time is when the text was read (files) or logged (journal).
	Time time.Time
	// Stood is when the text was written at the latest, where it stood in the
	// source before this start: when a file was written to last before it, or when
	// an entry of the journal was logged. It is zero for what came since.
	Stood time.Time
	// Middle is true where Text begins inside a line: its beginning was handed
	// over before (see Text), or was never to be (the file is followed from
	// its end).
	Middle bool
	// Text holds the lines, each with its newline. A line without an end is
	// cut where the follower's options say. The last line of a file that was
	// rotated away and has no writer left may lack its newline too. Text is
	// borrowed: a Handler that keeps a part of it past its return copies it.
	Text []byte
	// PID is the process that wrote the line, 0 if not known. Only the
	// journal knows it (_PID).
	PID int
	// Unit is the systemd unit that wrote the line, "" if not known. Only the
	// journal knows it (_SYSTEMD_UNIT).
	Unit string
}

// Handler takes chunks. Calls for one source come one after the other; calls
// for different sources may come at the same time. A Handler that blocks
// holds back its source, and loses nothing.
type Handler func(Chunk)

// Status is what a source tells of itself.
type Status struct {
	Name  string // the file's path, or the journal's unit pattern
	Kind  string // "file" or "journal"
	Lines uint64 // newlines handed over since the start
	Bytes uint64 // bytes handed over since the start
	// Truncations counts the times when text may have been destroyed before
	// it could be read: the file was cut in place, or a file that had been
	// born under the name was deleted before it could be opened, or journal
	// entries were removed.
	Truncations uint64
	// Error is what keeps the source from being read just now, nil if nothing.
	Error error
}
