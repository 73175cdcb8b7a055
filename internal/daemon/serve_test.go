package daemon

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

func TestFewClientsAtATime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open, most atomic.Int32
	hold := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			most.Store(max(most.Load(), open.Add(1)))
			<-hold
			open.Add(-1)
		}))
	}()
	const clients = 2 * maxClients
	answers := make(chan error, clients)
	for range clients {
		go func() {
			c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			r, err := c.Get("http://" + l.Addr().String())
			if err == nil {
				_, err = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			answers <- err
		}()
	}
	for end := time.Now().Add(10 * time.Second); open.Load() < maxClients && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	for range clients {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if n := most.Load(); n > maxClients {
		t.Errorf("%d clients at a time, want at most %d", n, maxClients)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
