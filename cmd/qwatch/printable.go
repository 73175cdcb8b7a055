package main

import (
	"bytes"
	"io"
	"strings"
	"unicode"
)

// printable is a writer to a terminal. Names come from logs and from any
// user's processes; the control characters in them, with which a terminal can
// be made to lie, become question marks.
type printable struct{ io.Writer }

// Write writes p without control characters but tabs and newlines.
func (w printable) Write(p []byte) (int, error) {
	clean := bytes.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, p)
	if _, err := w.Writer.Write(clean); err != nil {
		return 0, err
	}
	return len(p), nil
}

// oneLine makes text fit for one line of a console.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}
