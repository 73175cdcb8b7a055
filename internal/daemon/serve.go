package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"qwatch/internal/text"
)

// serveStatus answers GET /status on a UNIX socket that only root and the
// daemon's group can reach.
func (d *Daemon) serveStatus(ctx context.Context, path string) error {
	l, err := listenUnix(path)
	if err != nil {
		d.log.Warn().Err(err).Msg("no status: `qwatch status` will not reach this daemon")
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		status, err := d.Status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// An error here is a client that has gone.
		_ = json.NewEncoder(text.Writer(w)).Encode(status)
	})
	return serve(ctx, l, mux)
}

// listenUnix listens at path in place of a socket that a dead daemon left; a
// living one keeps it.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("another qwatch answers at %s", path)
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

// serve runs an HTTP server on l until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	l = &few{Listener: l, free: make(chan struct{}, maxClients), done: ctx.Done()}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// maxClients is how many clients are served at a time. Any local user can
// reach the metrics, and each connection costs 40 KiB.
const maxClients = 32

// few is a listener with at most cap(free) open connections.
type few struct {
	net.Listener
	free chan struct{}
	done <-chan struct{}
}

// Accept waits while too many are open.
func (l *few) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &client{Conn: c, gone: sync.OnceFunc(func() { <-l.free })}, nil
}

// client is a connection that makes room when it is closed.
type client struct {
	net.Conn
	gone func()
}

// Close closes the connection.
func (c *client) Close() error {
	defer c.gone()
	return c.Conn.Close()
}
