package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"qwatch/internal/testbed"
)

const fullRecord = "*** uWSGI listen queue of socket \"127.0.0.1:%d\" (fd: 3) full !!! (101/100) ***\n"

// sourceOf is what the status tells of a source.
func (q *qwatch) sourceOf(name string) (hits int, failure string) {
	q.t.Helper()
	sources, _ := q.status()["sources"].([]any)
	for _, s := range sources {
		src := s.(map[string]any)
		if src["name"] == name {
			failure, _ = src["error"].(string)
			return int(src["hits"].(float64)), failure
		}
	}
	return -1, ""
}

// threeSources is a qwatch with three sources, of which the second stands on a file
// system that can hang.
func threeSources(t *testing.T) (s settings, fuse *testbed.FUSE) {
	testbed.Needs(t, "fuse")
	s = settings{DryRun: true, dir: directory(t)}
	for _, name := range []string{"one", "nfs", "two"} {
		dir := filepath.Join(s.dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s.More = append(s.More, filepath.Join(dir, "*.log"))
	}
	fuse = testbed.MountFUSE(t, filepath.Join(s.dir, "nfs"))
	fuse.Append("app.log", "")
	s.hit(t, "one", 0)
	s.hit(t, "two", 0)
	return s, fuse
}

// hit writes records to the log in a folder, also where there are none to write.
func (s settings) hit(t *testing.T, folder string, n int) {
	t.Helper()
	log, err := os.OpenFile(s.log(folder), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for i := range n {
		fmt.Fprintf(log, fullRecord, 5000+i)
	}
}

func (s settings) log(folder string) string { return filepath.Join(s.dir, folder, "app.log") }

// found waits until a source has so many hits and does not hang, and measures.
func (q *qwatch) found(folder string, n int, most time.Duration) {
	q.t.Helper()
	began := time.Now()
	until(q.t, fmt.Sprintf("%d hits in %s", n, folder), func() bool {
		hits, failure := q.sourceOf(q.settings.log(folder))
		return hits == n && failure == ""
	})
	// A status is a second old at most.
	wantAtMost(q.t, "a hit in "+folder, time.Since(began), most)
}

func reachable(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err == nil {
		c.Close()
	}
	return err == nil
}

const noAnswer = "does not answer (its file system hangs?)"

// A source that hangs from before the start keeps neither READY nor the others
// back, nor the end.
func TestHangsBeforeTheStart(t *testing.T) {
	s, fuse := threeSources(t)
	fuse.Hang()
	replace(t, s.file(), s.text(t))
	q := launch(t, s)
	took := stopwatch(q.cmd.Process.Pid)
	until(t, "qwatch is ready", func() bool { return q.said("is ready") || q.ended() })
	wantAtMost(t, "READY", took(), 1500*time.Millisecond)
	if n := len(q.lines(noAnswer)); n != 1 {
		t.Errorf("it is told %d times", n)
	}
	if _, failure := q.sourceOf(s.More[1]); !strings.HasPrefix(failure, noAnswer) {
		t.Errorf("its status: %q", failure)
	}
	s.hit(t, "one", 2)
	s.hit(t, "two", 3)
	q.found("one", 2, 2*time.Second)
	q.found("two", 3, 2*time.Second)
	q.stop(syscall.SIGTERM)
	if !q.said("is left behind") {
		t.Error("it does not say what it left behind")
	}
}

// A source of which nobody knows yet that it hangs holds the end up for a while,
// and a second signal does not.
func TestHangsAtTheEnd(t *testing.T) {
	for _, signals := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d signals", signals), func(t *testing.T) {
			s, fuse := threeSources(t)
			q := start(t, s)
			<-fuse.Hang()
			took, most := stopwatch(q.cmd.Process.Pid), 6*time.Second
			q.cmd.Process.Signal(syscall.SIGTERM)
			if signals == 2 {
				// The first one is known when the status is not served any more.
				until(t, "it stops", func() bool { return !reachable(s.Socket()) })
				q.cmd.Process.Signal(syscall.SIGTERM)
				most = time.Second
			}
			until(t, "qwatch ends", func() bool { took(); return q.ended() })
			wantAtMost(t, "the end", took(), most)
			if status := q.cmd.ProcessState.ExitCode(); status != map[int]int{1: 0, 2: 128 + int(syscall.SIGTERM)}[signals] {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// One that begins to hang while it is followed delays no other, and what was
// written to it meanwhile is read when it answers: by this process, or the next
// one. A new configuration without it is in force at once.
func TestBeginsToHang(t *testing.T) {
	s, fuse := threeSources(t)
	q := start(t, s)
	if q.said(noAnswer) {
		t.Fatal("it hangs already")
	}
	text := func(n int) string { return strings.Repeat(fmt.Sprintf(fullRecord, 1), n) }
	fuse.Append("app.log", text(5))
	q.found("nfs", 5, 3*time.Second)
	<-fuse.Hang()
	fuse.Append("app.log", text(5))
	for i := range 5 {
		s.hit(t, "one", 1)
		q.found("one", i+1, 2*time.Second)
	}
	q.waitFor(noAnswer)
	if _, failure := q.sourceOf(s.log("nfs")); !strings.HasPrefix(failure, noAnswer) {
		t.Errorf("its status: %q", failure)
	}

	// What does not concern it is in force at once.
	before, after, _ := bytes.Cut(s.text(t), []byte(s.More[2]))
	replace(t, s.file(), bytes.Join([][]byte{before, after}, []byte(s.More[2]+".new\", \""+s.More[2])))
	began := time.Now()
	q.waitFor("the new configuration is in force")
	wantAtMost(t, "the new configuration", time.Since(began), 3*time.Second)
	s.hit(t, "two", 1)
	q.found("two", 1, 2*time.Second)

	fuse.Release()
	q.waitFor("answers again")
	q.found("nfs", 10, 3*time.Second)
	<-fuse.Hang()
	fuse.Append("app.log", text(5))
	q.cmd.Process.Signal(syscall.SIGTERM)
	until(t, "qwatch ends", func() bool { return q.ended() })
	fuse.Release()
	next := start(t, s)
	next.found("nfs", 5, 3*time.Second)
	next.stop(syscall.SIGTERM)
}
