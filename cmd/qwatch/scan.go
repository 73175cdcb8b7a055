package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"qwatch/internal/config"
	"qwatch/internal/text"
	"qwatch/matcher"
	"qwatch/tailer/bulk"
)

// scanReport is what `qwatch scan --format json` prints.
type scanReport struct {
	Files      int              `json:"files"`
	Bytes      int64            `json:"bytes"`
	Lines      int64            `json:"lines"`
	Hits       int              `json:"hits"`
	Unreadable []scanUnreadable `json:"unreadable"`
	Sockets    []*scanSocket    `json:"sockets"`
	// LeftOut is what stands in the logs and not in Sockets: a log can name any
	// number of sockets.
	LeftOut *scanLeftOut `json:"left_out,omitempty"`
}

// scanLeftOut counts the records of further sockets, and further incidents.
type scanLeftOut struct {
	Hits      int `json:"hits"`
	Incidents int `json:"incidents"`
}

// What a report holds at most.
const (
	maxScanSockets   = 10000
	maxScanIncidents = 100000
)

type scanUnreadable struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

// scanSocket is one socket in one file. Socket is the record's name after
// text.Line, as plan and doctor show it too: plan takes it for --socket. The
// times are null where no record had a date, the numbers where none was
// plausible.
type scanSocket struct {
	Socket    string         `json:"socket"`
	Source    string         `json:"source"`
	Hits      int            `json:"hits"`
	First     *time.Time     `json:"first"`
	Last      *time.Time     `json:"last"`
	Peak      *int           `json:"peak"`
	Limit     *int           `json:"limit"`
	Incidents []scanIncident `json:"incidents"`
}

type scanIncident struct {
	First *time.Time `json:"first"`
	Last  *time.Time `json:"last"`
	Hits  int        `json:"hits"`
	Peak  *int       `json:"peak"`
	Limit *int       `json:"limit"`
}

func newScan(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scan [flags] FILE|DIRECTORY|GLOB|-...",
		Short: "Find hits and incidents in logs that exist",
		Long: `Read logs (also .gz, .zst, .xz and .bz2; "-" is standard input) and print the
listen queue records in them, by socket. Nothing is changed, and no privilege
is needed beyond reading the files.`,
		Args: cobra.MinimumNArgs(1),
	}
	format := cmd.Flags().String("format", "text", "`text` or json")
	since := cmd.Flags().String("since", "", "only records since this `time` (2006-01-02, \"2006-01-02 15:04:05\", RFC 3339, or 2h for two hours ago)")
	until := cmd.Flags().String("until", "", "only records until this `time`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *format != "text" && *format != "json" {
			return &exit{exitUsage, fmt.Errorf("--format %q is not known", *format), "use text or json"}
		}
		s := scanner{report: scanReport{Unreadable: []scanUnreadable{}, Sockets: []*scanSocket{}}, sockets: map[[2]string]*scanSocket{}}
		var err error
		if s.since, err = parseTime(*since, time.Now()); err != nil {
			return &exit{exitUsage, fmt.Errorf("--since: %w", err), timeHint}
		}
		if s.until, err = parseTime(*until, time.Now()); err != nil {
			return &exit{exitUsage, fmt.Errorf("--until: %w", err), timeHint}
		}
		s.scan(cmd.Context(), e, args)
		if *format == "json" {
			err = json.NewEncoder(e.stdout).Encode(s.report)
		} else {
			err = s.report.print(e.stdout)
		}
		if err != nil {
			return &exit{exitFailed, err, ""}
		}
		for _, u := range s.report.Unreadable {
			fmt.Fprintf(text.Writer(e.stderr), "qwatch: error: %s: %s\n", u.Path, u.Error)
		}
		if s.undated > 0 {
			fmt.Fprintf(e.stderr, "qwatch: %s left out\n", text.Plural(s.undated, "record without a date was", "records without a date were"))
		}
		switch {
		case cmd.Context().Err() != nil:
			return &exit{exitFailed, errors.New("interrupted: this is what was found so far"), "run it again to read all"}
		case len(s.report.Unreadable) > 0:
			return &exit{status: exitFailed}
		}
		return nil
	}
	return cmd
}

const timeHint = `write 2006-01-02, "2006-01-02 15:04:05", RFC 3339, or 2h for two hours ago`

// parseTime reads a time as --since takes it, in the local zone; "" is none.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago.Abs()), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time", text)
}

// scanner collects what a scan finds.
type scanner struct {
	since, until time.Time
	report       scanReport
	sockets      map[[2]string]*scanSocket // by source and socket
	undated      int
	incidents    int
}

func (s *scanner) scan(ctx context.Context, e env, args []string) {
	paths, missing := bulk.Expand(ctx, args)
	group := config.Default().Group
	book := matcher.NewBook(group.Window, group.Quiet, group.Threshold)
	named := make(map[string]bool, len(args))
	for _, arg := range args {
		named[arg] = true
	}
	options := bulk.Options{Literal: matcher.Literal, Seam: matcher.Seam, Named: func(path string) bool { return named[path] }}
	wipe := func() {}
	if f, ok := e.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		options.Progress, wipe = progress(f)
	}
	totals := bulk.Read(ctx, paths, e.stdin, options, func(path string, text []byte) {
		matcher.Scan(text, matcher.Meta{Source: path}, func(h matcher.Hit) { s.add(book, h) })
	})
	wipe()
	s.collect(book.CloseAll())
	s.report.Files, s.report.Bytes, s.report.Lines = totals.Files, totals.Bytes, totals.Lines
	for _, u := range append(missing, totals.Unreadable...) {
		s.report.Unreadable = append(s.report.Unreadable, scanUnreadable{u.Path, u.Err.Error()})
	}
	sort.SliceStable(s.report.Sockets, func(i, j int) bool {
		a, b := s.report.Sockets[i], s.report.Sockets[j]
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Socket, b.Socket)) < 0
	})
}

// add takes one record. The dates in the text serve as the clock.
func (s *scanner) add(book *matcher.Book, h matcher.Hit) {
	if !s.since.IsZero() || !s.until.IsZero() {
		if h.At.IsZero() {
			s.undated++
			return
		}
		if h.At.Before(s.since) || !s.until.IsZero() && h.At.After(s.until) {
			return
		}
	}
	key := [2]string{h.Source, h.Socket}
	socket := s.sockets[key]
	if socket == nil && len(s.sockets) >= maxScanSockets {
		s.report.Hits++
		s.leftOut().Hits++
		return
	}
	if socket == nil {
		socket = &scanSocket{Socket: text.Line(strings.Clone(h.Socket)), Source: h.Source, Incidents: []scanIncident{}}
		s.sockets[key] = socket
		s.report.Sockets = append(s.report.Sockets, socket)
	}
	s.report.Hits++
	socket.Hits++
	if !h.At.IsZero() {
		at := h.At.UTC()
		if socket.First == nil || at.Before(*socket.First) {
			socket.First = &at
		}
		if socket.Last == nil || at.After(*socket.Last) {
			socket.Last = &at
		}
	}
	if !h.Garbage {
		if socket.Peak == nil || h.Length > *socket.Peak {
			socket.Peak = &h.Length
		}
		socket.Limit = &h.Limit
	}
	book.Add(h.Source+"\x00"+h.Socket, h, h.At)
	s.collect(book.Ended())
}

func (s *scanner) leftOut() *scanLeftOut {
	if s.report.LeftOut == nil {
		s.report.LeftOut = &scanLeftOut{}
	}
	return s.report.LeftOut
}

func (s *scanner) collect(ended []matcher.Incident) {
	for _, i := range ended {
		if s.incidents++; s.incidents > maxScanIncidents {
			s.leftOut().Incidents++
			continue
		}
		source, socket, _ := strings.Cut(i.Key, "\x00")
		in := scanIncident{Hits: i.Hits, First: dated(i.First), Last: dated(i.Last)}
		if i.Peak > 0 {
			in.Peak, in.Limit = &i.Peak, &i.Limit
		}
		at := s.sockets[[2]string{source, socket}]
		at.Incidents = append(at.Incidents, in)
	}
}

func dated(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// print writes the report for people.
func (r scanReport) print(w io.Writer) error {
	var b strings.Builder
	for _, s := range r.Sockets {
		fmt.Fprintf(&b, "%s in %s: %s", s.Socket, s.Source, text.Plural(s.Hits, "record", "records"))
		if s.First != nil {
			fmt.Fprintf(&b, ", %s to %s", s.First.Local().Format(time.DateTime), s.Last.Local().Format(time.DateTime))
		}
		if s.Peak != nil {
			fmt.Fprintf(&b, ", longest queue %d, limit %d", *s.Peak, *s.Limit)
		} else {
			b.WriteString(", no plausible numbers")
		}
		b.WriteByte('\n')
		for _, i := range s.Incidents {
			b.WriteString("  incident")
			if i.First != nil {
				fmt.Fprintf(&b, " %s, %s long", i.First.Local().Format(time.DateTime), i.Last.Sub(*i.First).Round(time.Second))
			}
			b.WriteString(": " + text.Plural(i.Hits, "record", "records"))
			if i.Peak != nil {
				fmt.Fprintf(&b, ", longest queue %d, limit %d", *i.Peak, *i.Limit)
			}
			b.WriteByte('\n')
		}
	}
	if l := r.LeftOut; l != nil {
		fmt.Fprintf(&b, "left out: %d records of further sockets, and %d incidents\n", l.Hits, l.Incidents)
	}
	fmt.Fprintf(&b, "%s in %s of %s\n", text.Plural(r.Hits, "record", "records"), text.Plural(int(r.Lines), "line", "lines"), text.Plural(r.Files, "file", "files"))
	_, err := io.WriteString(w, b.String())
	return err
}
