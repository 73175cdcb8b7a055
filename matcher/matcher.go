// Package matcher finds uWSGI's listen queue records in log text and groups
// them. It is pure: bytes and times in, values out.
package matcher

import "time"

// Hit is one listen queue record.
type Hit struct {
	// Socket is the name in the record ("127.0.0.1:5000", "[::1]:80", "@app"),
	// or in the old format the number, as text.
	Socket string
	// FD is the master's file descriptor in the record, -1 where none could
	// be parsed.
	FD int
	// Old is true for the format before uWSGI 2.0, which has a number only.
	Old bool
	// Length and Limit are what the record says of the accept queue. They are
	// claims, not facts; each is -1 where the text is not a number that an
	// accept queue can have (0 to 2^31-1): see Garbage.
	Length, Limit int
	// Garbage is true where one of the numbers cannot be true: negative, over
	// 2^31-1, or (as under emulated CPUs) a length far over the limit.
	Garbage bool
	// At is when the record was written, or read if it does not say.
	At time.Time
	// Source is the file or journal unit that the record came from, PID and
	// Unit who wrote it; PID is 0 and Unit "" where that is not known.
	Source string
	PID    int
	Unit   string
}

// Incident is a group of hits of one socket.
type Incident struct {
	ID     string // stable: made of the socket and the first hit's time
	Socket string
	First  time.Time
	Last   time.Time
	Closed bool
	Hits   int
	Peak   int // largest plausible length, 0 if there was none
	Limit  int // the newest plausible limit, 0 if there was none
}
