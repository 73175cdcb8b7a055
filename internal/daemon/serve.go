package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// service is something that is served as long as qwatch runs.
type service struct {
	name   string // "status", for messages
	listen func() (net.Listener, error)
	// hint says what to do where it cannot listen.
	hint string
	page func(*reading) (contentType string, body []byte, err error)
	path string
}

// retry is how long to wait before a service is tried again: twice as long from
// try to try.
type retry struct{ first, last time.Duration }

var serviceRetry = retry{5 * time.Second, time.Minute}

// never is why a service cannot work in this process.
type never string

// Error is the text itself.
func (n never) Error() string { return string(n) }

// keepServing serves until ctx ends. Without it qwatch does its work all the
// same: what stands against it is said once, and it is tried again.
func (d *Daemon) keepServing(ctx context.Context, s service, again retry) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+s.path, func(w http.ResponseWriter, r *http.Request) {
		var kind string
		var body []byte
		now, err := d.readings.get(r.Context())
		if err == nil {
			kind, body, err = s.page(now)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", kind)
		// Without this deadline the server's holds; a client that has gone is no
		// error.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
		_, _ = w.Write(body)
	})
	said := false
	for wait := again.first; ; wait = min(2*wait, again.last) {
		l, err := s.listen()
		if err == nil {
			if said {
				d.log.Info().Msgf("%s: served now at %s", s.name, l.Addr())
			}
			began := time.Now()
			if err = serve(ctx, l, mux); time.Since(began) > again.last {
				said, wait = false, again.first
			}
		}
		var forEver never
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &forEver):
			d.log.Info().Msgf("no %s: %v", s.name, err)
			return nil
		case !said:
			d.log.Warn().Msgf("no %s: %v; it is tried again until it works: %s", s.name, err, s.hint)
			said = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// serveStatus answers GET /status on a UNIX socket that only root and the
// daemon's group can reach.
func (d *Daemon) serveStatus(ctx context.Context, path string) error {
	return d.keepServing(ctx, service{
		name: "status", path: "/status",
		listen: func() (net.Listener, error) { return listenUnix(path) },
		hint:   "until then `qwatch status` does not reach this daemon; set socket to a path of its own",
		page: func(r *reading) (string, []byte, error) {
			body, err := r.json()
			return "application/json", body, err
		},
	}, serviceRetry)
}

// listenUnix listens at path in place of a socket that a dead daemon left; a
// living one keeps it, also where so many knock that it takes no more just now
// (connect(2), EAGAIN).
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		defer c.Close()
		return nil, fmt.Errorf("%s answers at %s", peer(c), path)
	case errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("somebody listens at %s and does not answer", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// peer names the process at the other end of a UNIX socket.
func peer(c net.Conn) string {
	text := "another process"
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return text
	}
	_ = raw.Control(func(fd uintptr) { // an error leaves it at that
		if u, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			text = fmt.Sprintf("process %d of user %d", u.Pid, u.Uid)
		}
	})
	return text
}

// serve runs an HTTP server on l until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	all := &guests{Listener: l}
	server := &http.Server{
		Handler:           all.noting(h),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, clientKey{}, c) },
		ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		MaxHeaderBytes: 4 << 10,
	}
	// Nobody asks twice within a second.
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(all); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

const (
	// maxClients is how many clients are there at a time. Any local user can
	// reach the metrics, and each connection costs 40 KiB.
	maxClients = 256
	// maxSilent is how many of them may be yet to say what they want before
	// they, not those who are answered, make room for others.
	maxSilent = 32
	// leastTime is what a client has at least. It bounds how often clients that
	// say nothing are let in and sent away.
	leastTime = 5 * time.Millisecond
	// writeTime is how long a client may take to read its answer.
	writeTime = 2 * time.Second
)

// guests is a listener that lets everybody in: where maxClients are there, one
// that has come first has to go.
type guests struct {
	net.Listener
	mu   sync.Mutex
	open []*client // by their arrival
}

// client is a connection among them.
type client struct {
	net.Conn
	of    *guests
	came  time.Time
	asked bool // its request is answered
}

type clientKey struct{}

// Accept takes the next client in.
func (g *guests) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if victim := g.victim(); victim != nil {
		time.Sleep(leastTime - time.Since(victim.came))
		victim.Close()
	}
	one := &client{Conn: conn, of: g, came: time.Now()}
	g.mu.Lock()
	g.open = append(g.open, one)
	g.mu.Unlock()
	return one, nil
}

// victim is the client that has to make room for the next one, nil where there
// is room.
func (g *guests) victim() *client {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.open) < maxClients {
		return nil
	}
	silent := 0
	for _, one := range g.open {
		if !one.asked {
			silent++
		}
	}
	return g.open[slices.IndexFunc(g.open, func(one *client) bool { return one.asked == (silent <= maxSilent) })]
}

// noting notes whose request is being answered.
func (g *guests) noting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if one, ok := r.Context().Value(clientKey{}).(*client); ok {
			g.mu.Lock()
			one.asked = true
			g.mu.Unlock()
		}
		h.ServeHTTP(w, r)
	})
}

// Close closes the connection and makes room.
func (one *client) Close() error {
	g := one.of
	g.mu.Lock()
	if i := slices.Index(g.open, one); i >= 0 {
		g.open = slices.Delete(g.open, i, i+1)
	}
	g.mu.Unlock()
	return one.Conn.Close()
}
