package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// literal is what the other tools look for: the part of the record that never
// changes, which is the best that one can ask of them.
const literal = "*** uWSGI listen queue of socket"

// lines writes what a uWSGI logs: request lines by uWSGI's default format
// (core/logging.c, uwsgi_logit_simple) with what Django and Python say between
// them. The same seed gives the same lines.
type lines struct {
	rand *rand.Rand
	now  time.Time
	n    int
	buf  []byte
}

func newLines(seed uint64) *lines {
	return &lines{rand: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 11, 22, 13, 40, 52, 0, time.UTC)}
}

var (
	paths = []string{"/", "/api/v1/orders/%d", "/api/v1/orders/%d/items?page=2&size=50", "/static/js/app.%x.js", "/search?q=red+shoes&from=%d",
		"/accounts/login/?next=/orders/%d/", "/healthz", "/media/products/%d/thumb.jpg", "/admin/catalog/product/%d/change/"}
	methods = []string{"GET", "GET", "GET", "GET", "POST", "PUT", "HEAD"}
	codes   = []int{200, 200, 200, 200, 200, 301, 302, 304, 404, 500}
	chatter = []string{
		"WARNING django.request: Not Found: /wp-login.php\n",
		"Traceback (most recent call last):\n  File \"/srv/app/venv/lib/python3.11/site-packages/django/core/handlers/exception.py\", line 55, in inner\n    response = get_response(request)\nKeyError: 'customer'\n",
		"INFO orders.tasks: order 81723 was handed to the warehouse in 18 ms\n",
	}
)

// next returns the next line, or lines, with their newlines. The text is valid
// until the next call.
func (l *lines) next() []byte {
	r := l.rand
	l.n++
	if l.n%100 == 0 {
		l.now = l.now.Add(time.Second)
	}
	l.buf = l.buf[:0]
	if l.n%50 == 0 {
		return append(l.buf, chatter[r.IntN(len(chatter))]...)
	}
	path := paths[r.IntN(len(paths))]
	if strings.Contains(path, "%") {
		path = fmt.Sprintf(path, r.IntN(1_000_000))
	}
	code := codes[r.IntN(len(codes))]
	l.buf = fmt.Appendf(l.buf, "[pid: %d|app: 0|req: %d/%d] %d.%d.%d.%d () {%d vars in %d bytes} [%s] %s %s => generated %d bytes in %d msecs (HTTP/1.1 %d) %d headers in %d bytes (1 switches on core %d)\n",
		1200+r.IntN(16), l.n/16, l.n, 10+r.IntN(200), r.IntN(256), r.IntN(256), r.IntN(256), 30+r.IntN(20), 400+r.IntN(900),
		l.now.Format(time.ANSIC), methods[r.IntN(len(methods))], path, r.IntN(90_000), r.IntN(400), code, 2+r.IntN(8), 60+r.IntN(400), r.IntN(4))
	return l.buf
}

// record is the line that qwatch is for.
func (l *lines) record() []byte {
	l.buf = fmt.Appendf(l.buf[:0], "%s - *** uWSGI listen queue of socket \"127.0.0.1:5000\" (fd: 3) full !!! (%d/100) ***\n",
		l.now.Format(time.ANSIC), 101+l.rand.IntN(2))
	return l.buf
}

// writeLog writes a log of some size with one record in 10,000 lines.
func writeLog(path string, size int64) {
	file := must(os.Create(path))
	defer file.Close()
	w := bufio.NewWriterSize(file, 1<<20)
	l := newLines(1)
	for written := int64(0); written < size; {
		text := l.next()
		if l.n%10_000 == 0 {
			text = l.record()
		}
		written += int64(must(w.Write(text)))
	}
	check(w.Flush())
}

const (
	// blockLines is the lines of one millisecond at 100,000 lines a second.
	blockLines = 100
	// recordEvery is how many milliseconds pass between two records: too few
	// for an incident, since following is what is measured.
	recordEvery = 8000
)

// pace appends one block each millisecond for a while. Where the machine took
// its time away it catches up, so that the number of lines is exact. Every
// eight seconds one line more is the record, if there is one; their number is
// returned.
func pace(ctx context.Context, w io.Writer, span time.Duration, record []byte) (records int, err error) {
	l := newLines(2)
	// The text is made before, so that it costs nothing while it is written.
	blocks := make([][]byte, 100)
	for i := range blocks {
		for n := 0; n < blockLines; {
			text := l.next()
			if lines := bytes.Count(text, []byte{'\n'}); n+lines <= blockLines {
				blocks[i] = append(blocks[i], text...)
				n += lines
			}
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	total := int(span / time.Millisecond)
	for i := 0; i < total; {
		select {
		case <-ctx.Done():
			return records, ctx.Err()
		case <-tick.C:
		}
		for due := min(total, int(time.Since(began)/time.Millisecond)); i < due; i++ {
			text := blocks[i%len(blocks)]
			if i%recordEvery == recordEvery-1 && record != nil {
				text = slices.Concat(text, record)
				records++
			}
			if _, err := w.Write(text); err != nil {
				return records, err
			}
		}
	}
	return records, nil
}
