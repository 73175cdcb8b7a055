package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress draws a bar on a terminal for work that takes long.
func progress(f *os.File) (draw func(done, total int64), wipe func()) {
	const patience = 500 * time.Millisecond
	begin, drawn := time.Now(), false
	draw = func(done, total int64) {
		elapsed := time.Since(begin)
		if elapsed < patience {
			return
		}
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return
		}
		drawn = true
		fmt.Fprintf(f, "\r\x1b[K%s", progressBar(done, total, elapsed, width-1))
	}
	wipe = func() {
		if drawn {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
	return draw, wipe
}

// progressBar returns a progress bar of at most width columns, without colours or an
// end of line, such as
//
//	[=========>          ]  47%  512 MB of 1.1 GB  1.2 GB/s  0:03 left
//
// done and total are bytes; a total of 0 is unknown. elapsed is the time that
// done took. Where the columns do not suffice the bar goes first, and then
// what stands at the right.
func progressBar(done, total int64, elapsed time.Duration, width int) string {
	var words []string
	rate := 0.0
	if elapsed > 0 {
		rate = float64(done) / elapsed.Seconds()
	}
	part := 0.0
	if total > 0 {
		// A file that grows gives more than was expected.
		part = min(1, float64(done)/float64(total))
		words = append(words, fmt.Sprintf("%3d%%", int(part*100)), amount(float64(done))+" of "+amount(float64(total)))
	} else {
		words = append(words, amount(float64(done)))
	}
	words = append(words, amount(rate)+"/s")
	if total > done && rate > 0 {
		left := int64(float64(total-done)/rate + 0.5)
		words = append(words, fmt.Sprintf("%d:%02d left", left/60, left%60))
	}
	text := strings.Join(words, "  ")
	const least = 10 // columns that a bar is worth
	if room := min(width-len(text)-4, 40); total > 0 && room >= least {
		full := int(part * float64(room))
		bar := strings.Repeat("=", full)
		if full < room {
			bar += ">" + strings.Repeat(" ", room-full-1)
		}
		return "[" + bar + "]  " + text
	}
	for len(words) > 1 && len(text) > width {
		words = words[:len(words)-1]
		text = strings.Join(words, "  ")
	}
	return text[:min(len(text), max(width, 0))]
}

// amount writes an amount with two to four digits and its unit, powers of 1000.
func amount(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		switch {
		case n < 9.95 && unit != "B":
			return fmt.Sprintf("%.1f %s", n, unit)
		case n < 999.5:
			return fmt.Sprintf("%.0f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}
