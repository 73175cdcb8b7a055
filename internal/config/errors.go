package config

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"qwatch/internal/text"
)

// Error is one thing that is wrong with a configuration.
type Error struct {
	File         string // "" where the value came from elsewhere
	Line, Column int    // from 1, Column in characters; 0 where no line is to blame
	Message      string // what is wrong, one line
	Excerpt      string // the line and, below, a caret under the place; or ""
	Hint         string // what to do about it, one line
}

// Error writes everything but the hint on lines of its own: place and
// message, excerpt, "hint: …".
func (e *Error) Error() string {
	parts := []string{e.Title()}
	if e.Excerpt != "" {
		parts = append(parts, e.Excerpt)
	}
	if e.Hint != "" {
		parts = append(parts, "hint: "+e.Hint)
	}
	return strings.Join(parts, "\n")
}

// Title is the place, as far as there is one, and the message.
func (e *Error) Title() string {
	switch {
	case e.File == "":
		return e.Message
	case e.Line == 0:
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Errors is all that is wrong with a configuration, in the order of the file.
// It is never empty.
type Errors []*Error

func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n")
}

// problem is what is wrong with a value, wherever it came from.
type problem struct{ what, hint string }

// quoted quotes a value for a message, and cuts one that would fill the screen.
func quoted(value string) string {
	const most = 80
	if runes := []rune(value); len(runes) > most {
		value = string(runes[:most]) + "…"
	}
	return strconv.Quote(value)
}

// span is a run of bytes in a document.
type span struct{ offset, length int }

// errorAt makes the error for a place in the file.
func (d *document) errorAt(at span, p problem) *Error {
	file := d.text
	begin := bytes.LastIndexByte(file[:at.offset], '\n') + 1
	line, _, _ := bytes.Cut(file[begin:], []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	from := min(at.offset-begin, len(line))
	to := min(from+at.length, len(line))
	runes := func(raw []byte) []rune { return []rune(text.Lines(string(raw))) }
	head, mark, tail := runes(line[:from]), runes(line[from:to]), runes(line[to:])

	e := &Error{
		File:    d.name,
		Line:    bytes.Count(file[:begin], []byte("\n")) + 1,
		Column:  len(head) + 1,
		Message: p.what,
		Hint:    p.hint,
	}
	const most = 60 // characters on each side: an excerpt stays a line of a terminal
	if len(head) > most {
		head = append([]rune("…"), head[len(head)-most:]...)
	}
	if len(mark) > most {
		mark, tail = mark[:most], []rune("…")
	}
	if len(tail) > most {
		tail = append(tail[:most:most], '…')
	}
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r // keeps the caret in its column whatever a tab's width
		}
		return ' '
	}, string(head))
	number := fmt.Sprint(e.Line)
	e.Excerpt = fmt.Sprintf("  %s | %s%s%s\n  %*s | %s^%s", number, string(head), string(mark), string(tail),
		len(number), "", pad, strings.Repeat("~", max(0, len(mark)-1)))
	return e
}
