package host

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/kernel"
)

// Only a new socket, or half a minute, makes Sample walk over /proc.
func TestStale(t *testing.T) {
	walked := time.Now()
	options := &Options{}
	w := &walk{options: options, at: walked, known: map[uint64]bool{1: true, 2: true}, owned: map[uint64]owner{1: {}}}
	for _, c := range []struct {
		name   string
		after  time.Duration
		inodes []uint64
		want   bool
	}{
		{"nothing new", 29 * time.Second, []uint64{1, 2}, false},
		{"one has gone", 29 * time.Second, []uint64{1}, false},
		{"a new one", time.Second, []uint64{1, 2, 3}, true},
		{"a new one just after a walk", 999 * time.Millisecond, []uint64{3}, false},
		{"half a minute", 30 * time.Second, []uint64{1, 2}, true},
	} {
		var v view
		for _, inode := range c.inodes {
			v.listeners = append(v.listeners, kernel.Listener{Inode: inode})
		}
		if got := w.stale(options, []view{{}, v}, walked.Add(c.after)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if !w.stale(&Options{}, nil, walked) {
		t.Error("other options do not make it walk")
	}
}

// holder is a process with its parent and what it holds, as inode to fd.
func holder(pid, ppid int, start uint64, held map[uint64]int) kernel.Process {
	return kernel.Process{PID: pid, Stat: kernel.Stat{Start: start, PPID: ppid, State: 'S'}, Sockets: held}
}

func TestOwners(t *testing.T) {
	zombie := holder(12, 10, 3, nil)
	zombie.State = 'Z'
	for _, c := range []struct {
		name  string
		procs []kernel.Process
		want  []string
	}{
		{"none", nil, nil},
		{"without a master process", []kernel.Process{holder(10, 1, 1, map[uint64]int{7: 3})}, []string{"7: 10 fd 3 []"}},
		{"workers, one of them dead, and a router that has closed the socket", []kernel.Process{
			holder(13, 10, 4, map[uint64]int{8: 4}),
			holder(11, 10, 2, map[uint64]int{7: 3}),
			zombie,
			holder(10, 1, 1, map[uint64]int{7: 3, 8: 4}),
		}, []string{"7: 10 fd 3 [11 12]", "8: 10 fd 4 [12 13]"}},
		{"a vassal below its emperor", []kernel.Process{
			holder(5, 1, 1, map[uint64]int{6: 3}),
			holder(10, 5, 2, map[uint64]int{7: 3}),
			holder(11, 10, 3, map[uint64]int{7: 3}),
		}, []string{"6: 5 fd 3 []", "7: 10 fd 3 [11]"}},
		{"two masters share a socket (zerg): the older one", []kernel.Process{
			holder(10, 1, 9, map[uint64]int{7: 5}),
			holder(20, 1, 8, map[uint64]int{7: 3}),
			holder(11, 10, 9, map[uint64]int{7: 5}),
			holder(21, 20, 9, map[uint64]int{7: 3}),
		}, []string{"7: 20 fd 3 [21]"}},
	} {
		var got []string
		for inode, o := range owners(c.procs) {
			pids := []int{}
			for _, w := range o.workers {
				pids = append(pids, w.PID)
			}
			got = append(got, fmt.Sprintf("%d: %d fd %d %v", inode, o.master.PID, o.fd, pids))
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestGuess(t *testing.T) {
	tcp := kernel.Listener{Family: kernel.TCP, UID: 33, Addr: netip.MustParseAddrPort("127.0.0.1:5000")}
	byRoot := tcp
	byRoot.UID = 0
	path := kernel.Listener{Family: kernel.Unix, UID: -1, Name: []byte("/run/app.sock\x00")}
	abstract := kernel.Listener{Family: kernel.Unix, UID: 33, Name: []byte("\x00app\x00")}
	type proc struct {
		pid, ppid, uid int
		netns          uint64
		args           string
	}
	master := proc{10, 1, 33, 1, "uwsgi --socket 127.0.0.1:5000"}
	worker := proc{11, 10, 33, 1, master.args}
	for _, c := range []struct {
		name  string
		l     kernel.Listener
		procs []proc
		want  int // the master's pid, 0 for none
	}{
		{"master and worker", tcp, []proc{worker, master}, 10},
		{"bound by root", byRoot, []proc{master, worker}, 10},
		{"port only", tcp, []proc{{10, 1, 33, 1, "uwsgi --http-socket=:5000"}}, 10},
		{"two fit", tcp, []proc{master, {20, 1, 33, 1, master.args}}, 0},
		{"another user", tcp, []proc{{10, 1, 34, 1, master.args}}, 0},
		{"another namespace", tcp, []proc{{10, 1, 33, 2, master.args}}, 0},
		{"another port", tcp, []proc{{10, 1, 33, 1, "uwsgi --socket 127.0.0.1:15000"}}, 0},
		{"configured elsewhere", tcp, []proc{{10, 1, 33, 1, "uwsgi --ini app.ini"}}, 0},
		{"path", path, []proc{{10, 1, 33, 1, "uwsgi --socket=/run/app.sock"}}, 10},
		{"longer path", path, []proc{{10, 1, 33, 1, "uwsgi -s /srv/run/app.sock"}}, 0},
		{"abstract", abstract, []proc{{10, 1, 33, 1, "uwsgi -s @app"}}, 10},
	} {
		var procs []kernel.Process
		args := make(map[int][]string)
		for _, p := range c.procs {
			procs = append(procs, kernel.Process{
				PID: p.pid, UID: p.uid, Stat: kernel.Stat{PPID: p.ppid}, NetNS: p.netns, Denied: os.ErrPermission,
			})
			args[p.pid] = strings.Fields(p.args)
		}
		got := 0
		if o, ok := guess(c.l, 1, procs, func(p *kernel.Process) []string { return args[p.PID] }); ok {
			got = o.master.PID
			if o.fd != -1 {
				t.Errorf("%s: fd %d, want -1", c.name, o.fd)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
