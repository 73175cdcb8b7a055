// Command standin is a stand-in for uWSGI, for a demo where real uWSGI is not
// installed. It has what qwatch observes: a master that owns a listening socket
// and its backlog, workers, uWSGI 2.0's record once a second while the queue is
// full, and a reload on SIGHUP that keeps the socket and does not listen again.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serviceTime is how long a request takes that does not say (?ms=), as
// testbed's app.py has it.
const serviceTime = 10 * time.Millisecond

func main() {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		log.Fatal(work(os.NewFile(3, "listener")))
	}
	addr := flag.String("http-socket", "127.0.0.1:5000", "TCP `address`")
	listen := flag.Int("listen", 100, "listen `backlog`")
	workers := flag.Int("processes", 2, "`number` of workers")
	logFile := flag.String("logto", "/dev/stderr", "log `file`")
	for _, ignored := range []string{"plugin", "wsgi-file"} {
		flag.String(ignored, "", "taken and ignored")
	}
	flag.Bool("master", true, "taken and ignored")
	flag.Bool("need-app", true, "taken and ignored")
	flag.Parse()

	out, err := os.OpenFile(*logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(lead(*addr, *listen, *workers, out))
}

// lead is the master; it returns only when something failed.
func lead(addr string, backlog, workers int, out io.Writer) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	fd := int(socket.Fd())
	if err := unix.Listen(fd, backlog); err != nil { // anew, with the backlog that was asked for
		return err
	}
	l.Close()
	fmt.Fprintln(out, "*** this is a stand-in for uWSGI, not uWSGI ***")
	children, err := spawn(socket, workers)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-tick.C: // core/master.c, master_check_listen_queue
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil {
				return err
			}
			if info.Unacked > 0 && info.Unacked >= info.Sacked {
				fmt.Fprintf(out, "%s - *** uWSGI listen queue of socket \"%s\" (fd: %d) full !!! (%d/%d) ***\n",
					time.Now().Format(time.ANSIC), addr, fd, info.Unacked, info.Sacked)
			}
		case <-hup:
			fmt.Fprintln(out, "...gracefully killing workers...")
			for _, child := range children {
				child.Process.Signal(unix.SIGTERM)
				child.Wait()
			}
			if children, err = spawn(socket, workers); err != nil {
				return err
			}
			fmt.Fprintf(out, "gracefully (RE)spawned uWSGI master process (pid: %d)\n", os.Getpid())
		}
	}
}

func spawn(socket *os.File, n int) ([]*exec.Cmd, error) {
	var children []*exec.Cmd
	for range n {
		child := exec.Command("/proc/self/exe", "worker")
		child.ExtraFiles = []*os.File{socket} // fd 3 of the worker
		child.Stderr = os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if err := child.Start(); err != nil {
			return nil, err
		}
		children = append(children, child)
	}
	return children, nil
}

// work is a worker: one connection at a time, by accept(2) itself, because
// net.FileListener would call listen again.
func work(socket *os.File) error {
	for {
		fd, _, err := unix.Accept(int(socket.Fd()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		conn := os.NewFile(uintptr(fd), "connection")
		tv := unix.NsecToTimeval((4 * time.Second).Nanoseconds()) // uWSGI's socket-timeout
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			took, err := time.ParseDuration(r.URL.Query().Get("ms") + "ms")
			if err != nil {
				took = serviceTime
			}
			time.Sleep(took)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
		}
		conn.Close()
	}
}
