package host

import (
	"fmt"
	"slices"
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
		all, _ := owners(c.procs)
		for inode, o := range all {
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

// Many users of one person together have no more than two of his.
func TestLimitOfUsers(t *testing.T) {
	const users, each = 100, 50
	w := walk{owned: map[uint64]owner{1: {master: &kernel.Process{PID: 1, UID: 33}}}}
	for user := range users {
		p := &kernel.Process{PID: 10 + user, UID: 100000 + user}
		for i := range each {
			w.owned[uint64(1000*user+i+10)] = owner{master: p}
		}
	}
	w.limit(nil)
	if got, want := len(w.owned), 1+users*(maxStrangers/users); got != want {
		t.Errorf("%d sockets, want %d", got, want)
	}
	if len(w.unseen) != maxUsers+1 || w.unseen[maxUsers] != "2760 more sockets of 92 other users: no more of one user are looked at" {
		t.Errorf("%q", w.unseen)
	}
}

// One user's sockets, however many, leave room for those of others.
func TestLimit(t *testing.T) {
	crowd, unknown, root, other := holder(10, 1, 1, nil), holder(20, 1, 1, nil), holder(30, 1, 1, nil), holder(40, 1, 1, nil)
	crowd.UID, unknown.UID, root.UID, other.UID = 1001, -1, 0, 33
	w := walk{owned: map[uint64]owner{1_000_000: {master: &other}}}
	for i := range uint64(maxSocketsOf + 2) {
		w.owned[i], w.owned[10_000+i], w.owned[20_000+i] = owner{master: &crowd}, owner{master: &unknown}, owner{master: &root}
	}
	const early = maxSocketsOf + 1 // whose number is not the smallest
	w.limit(map[uint64]time.Time{early: time.Now()})
	left := map[int]int{}
	for _, o := range w.owned {
		left[o.master.PID]++
	}
	if diff := cmp.Diff(map[int]int{10: maxSocketsOf, 20: maxSocketsOf, 30: maxSocketsOf + 2, 40: 1}, left); diff != "" {
		t.Errorf("by process (-want +got)\n%s", diff)
	}
	if _, ok := w.owned[early]; !ok {
		t.Error("what was seen first is left out")
	}
	want := []string{"2 more sockets of users that /proc does not show: no more of one user are looked at", "2 more sockets of user 1001: no more of one user are looked at"}
	if diff := cmp.Diff(want, w.unseen); diff != "" || w.hidden == "" {
		t.Errorf("hidden %q, (-want +got)\n%s", w.hidden, diff)
	}
}
