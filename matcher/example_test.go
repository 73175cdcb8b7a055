package matcher_test

import (
	"fmt"
	"time"

	"qwatch/matcher"
)

func ExampleScan() {
	log := `[pid: 7|app: 0|req: 4/4] 127.0.0.1 () {18 vars in 242 bytes} GET /?q=*** uWSGI listen queue of socket ":80" (fd: 3) full !!! (101/100) ***
web-1  | Sun Nov 22 13:45:46 2026 - *** uWSGI listen queue of socket "127.0.0.1:5000" (fd: 3) full !!! (101/100) ***
Nov 22 13:45:47 web1 uwsgi[1878]: Sun Nov 22 13:45:47 2026 - *** uWSGI listen queue of socket 4 full !!! (-1/128) ***
`
	matcher.Scan([]byte(log), matcher.Meta{Location: time.UTC}, func(h matcher.Hit) {
		fmt.Println(h.At.Format(time.TimeOnly), h.Socket, h.FD, h.Length, h.Limit, h.Garbage)
	})
	// Output:
	// 13:45:46 127.0.0.1:5000 3 101 100 false
	// 13:45:47 4 4 -1 128 true
}

func ExampleBook() {
	book := matcher.NewBook(30*time.Second, time.Minute, 3)
	now := time.Date(2026, 11, 22, 13, 45, 46, 0, time.UTC)
	for range 5 {
		hit := matcher.Hit{Socket: ":80", Length: 101, Limit: 100, At: now}
		if inc, event := book.Add("uwsgi.service :80", hit, now); event == matcher.Opened {
			fmt.Println(inc.Socket, event, "after", inc.Hits, "hits")
		}
		now = now.Add(time.Second)
	}
	due, _ := book.Next()
	for _, inc := range book.Expire(due) {
		fmt.Println(inc.Socket, "closed after", inc.Hits, "hits, peak", inc.Peak, "of", inc.Limit)
	}
	// Output:
	// :80 opened after 3 hits
	// :80 closed after 5 hits, peak 101 of 100
}
