package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// get asks as a client that has some patience.
func get(t *testing.T, network, address string) string {
	t.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	r, err := client.Get("http://qwatch/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Clients that say nothing, that say something and stay, or that take no
// answer keep nobody else from one, at either kind of address.
func TestCrowd(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		answer := strings.Repeat("x", 64)
		long := strings.Repeat("x", 8<<20)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/long" {
					io.WriteString(w, long)
				}
				io.WriteString(w, answer)
			}))
		}()
		var crowd []net.Conn
		for i := range 1000 {
			c, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, c)
			says := []string{"", "G", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /long HTTP/1.1\r\nHost: x\r\n\r\n"}[i%4]
			io.WriteString(c, says) // it may have been sent away already
			if i%100 == 99 {
				if got := get(t, network, l.Addr().String()); got != answer {
					t.Errorf("%s, client %d: %q", network, i, got)
				}
			}
		}
		for _, c := range crowd {
			c.Close()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// However many ask at a time, one reading is made, and it is made again when it
// is too old.
func TestReadingsAreShared(t *testing.T) {
	var made atomic.Int32
	hold := make(chan struct{})
	r := readings{read: func(context.Context) (*reading, error) {
		<-hold
		if made.Add(1) == 2 {
			return nil, errors.New("trouble")
		}
		return &reading{}, nil
	}}
	ask := func(clients int) (errs []error) {
		var wait sync.WaitGroup
		var mu sync.Mutex
		for range clients {
			wait.Go(func() {
				_, err := r.get(t.Context())
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, err)
				}
			})
		}
		wait.Wait()
		return errs
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.get(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("one who went away: %v", err)
	}
	close(hold) // the reading that he asked for is made all the same
	if errs := ask(200); len(errs) > 0 || made.Load() != 1 {
		t.Errorf("%d readings for all, %v", made.Load(), errs)
	}
	r.at = r.at.Add(-readingAge)
	if errs := ask(200); len(errs) != 200 || made.Load() != 2 {
		t.Errorf("%d readings after a second, %v", made.Load(), errs)
	}
}

// An address that somebody else holds is tried again until it is free, and said
// once.
func TestServiceIsTriedAgain(t *testing.T) {
	var log bytes.Buffer
	d := &Daemon{log: zerolog.New(&log)}
	d.readings.read = func(context.Context) (*reading, error) { return &reading{}, nil }
	squatter, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := squatter.Addr().String()
	tries := 0
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	s := service{
		name: "metrics", path: "/", hint: "do something",
		listen: func() (net.Listener, error) {
			if tries++; tries == 5 {
				squatter.Close()
			}
			return net.Listen("tcp", address)
		},
		page: func(*reading) (string, []byte, error) { return "text/plain", []byte("page"), nil },
	}
	go func() { ended <- d.keepServing(ctx, s, retry{time.Millisecond, 2 * time.Millisecond}) }()
	for tried := 0; ; tried++ {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			if r, err := http.Get("http://" + address); err == nil {
				r.Body.Close()
				break // the squatter answers nothing
			}
		}
		if tried > 10000 {
			t.Fatal("never served")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), `"level":"warn"`); n != 1 || !strings.Contains(log.String(), "address already in use") ||
		!strings.Contains(log.String(), fmt.Sprintf("metrics: served now at %s", address)) {
		t.Errorf("%d warnings:\n%s", n, log.String())
	}
}

// A socket is taken over only from the dead.
func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qwatch.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"answers at " + path, "somebody listens at " + path + " and does not answer"} { // the first dial has filled it
		if l, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %s", l, err, want)
		}
	}
	unix.Close(fd)
	l, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
