package facts

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/matcher"
)

func TestLocate(t *testing.T) {
	worker := func(pid int) []Worker { return []Worker{{Process: Process{PID: pid}}} }
	var (
		a     = Socket{ID: SocketID{1, 1}, Address: "0.0.0.0:5000", Family: TCP, FD: 3, Master: Process{PID: 10, Unit: Known("a.service")}, Workers: worker(11), Logs: []string{"/var/log/a.log"}}
		b     = Socket{ID: SocketID{1, 2}, Address: "[::]:5000", Family: TCP6, FD: 3, Master: Process{PID: 20, Unit: Known("b.service")}, Workers: worker(21), Logs: []string{"/var/log/b.log"}}
		c     = Socket{ID: SocketID{2, 3}, Address: "0.0.0.0:5000", Family: TCP, FD: 4, Master: Process{PID: 30}, OtherNetNS: true}
		share = Socket{ID: SocketID{1, 4}, Address: "127.0.0.1:80", Family: TCP, FD: 5, Master: Process{PID: 40}}
		twin  = Socket{ID: SocketID{1, 5}, Address: "127.0.0.1:80", Family: TCP, FD: 6, Master: Process{PID: 40}}
		lone  = Socket{ID: SocketID{1, 6}, Address: "/run/app.sock", Family: Unix, FD: 7, Master: Process{PID: 50}}
	)
	all := []Socket{a, b, c, share, twin, lone}
	tests := []struct {
		name    string
		hit     matcher.Hit
		sockets []Socket
		want    string // inode, or the error
	}{
		{"by address", matcher.Hit{Socket: "[::]:5000", FD: 9}, all, "2"},
		{"by relative path", matcher.Hit{Socket: "app.sock"}, all, "6"},
		{"the only one, all else out of date", matcher.Hit{Socket: "/run/app.sock", PID: 999, Unit: "old.service", Source: "/var/log/old.log", FD: 99}, all, "6"},
		{"two families, by the master's pid", matcher.Hit{Socket: ":5000", PID: 20}, all, "2"},
		{"two families, by a worker's pid", matcher.Hit{Socket: ":5000", PID: 11}, all, "1"},
		{"two families, by unit", matcher.Hit{Socket: ":5000", Unit: "b.service"}, all, "2"},
		{"two families, by log", matcher.Hit{Socket: ":5000", Source: "/var/log/a.log"}, all, "1"},
		{"a pid that is gone, then by log", matcher.Hit{Socket: ":5000", PID: 999, Source: "/var/log/b.log"}, all, "2"},
		{"our own namespace first", matcher.Hit{Socket: "0.0.0.0:5000", FD: 4}, all, "1"},
		{"a foreign one by its pid", matcher.Hit{Socket: "0.0.0.0:5000", PID: 30}, all, "3"},
		{"a foreign one alone", matcher.Hit{Socket: "0.0.0.0:5000"}, []Socket{c}, "3"},
		{"two families, nothing to tell them apart", matcher.Hit{Socket: ":5000", FD: 3}, all,
			"the record fits 2 sockets: 0.0.0.0:5000 of uWSGI 10, [::]:5000 of uWSGI 20"},
		{"SO_REUSEPORT, by descriptor", matcher.Hit{Socket: "127.0.0.1:80", FD: 6}, all, "5"},
		{"SO_REUSEPORT, descriptor out of date", matcher.Hit{Socket: "127.0.0.1:80", FD: 3}, all,
			"the record fits 2 sockets: 127.0.0.1:80 of uWSGI 40, 127.0.0.1:80 of uWSGI 40"},
		{"a name that nobody has", matcher.Hit{Socket: "10.9.8.7:1"}, all, `no uWSGI listens on "10.9.8.7:1"`},
		{"a name with a newline in it", matcher.Hit{Socket: "a\nb"}, all, `no uWSGI listens on "a\nb"`},
		{"no sockets", matcher.Hit{Socket: "127.0.0.1:80"}, nil, `no uWSGI listens on "127.0.0.1:80"`},

		{"old format", matcher.Hit{Old: true, Socket: "7", FD: 7}, all, "6"},
		{"old format, two masters", matcher.Hit{Old: true, Socket: "3", FD: 3}, all,
			"the record fits 2 sockets: 0.0.0.0:5000 of uWSGI 10, [::]:5000 of uWSGI 20"},
		{"old format, two masters, by a worker's pid", matcher.Hit{Old: true, Socket: "3", FD: 3, PID: 21}, all, "2"},
		{"old format, two masters, by log", matcher.Hit{Old: true, Socket: "3", FD: 3, Source: "/var/log/a.log"}, all, "1"},
		{"old format, no such descriptor", matcher.Hit{Old: true, Socket: "99", FD: 99}, all,
			"no uWSGI master has a listening socket with descriptor 99"},
		{"a new record does not match by number", matcher.Hit{Socket: "7", FD: 7}, all, `no uWSGI listens on "7"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := Snapshot{Sockets: test.sockets}.Locate(test.hit)
			got := fmt.Sprint(s.ID.Inode)
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Where an owner could not be seen, nobody says that there is none.
func TestLocateHidden(t *testing.T) {
	f := Snapshot{HiddenOwners: "needs CAP_SYS_PTRACE", Ownerless: []Address{{TCP, "127.0.0.1:5001"}}}
	for _, test := range []struct {
		hit  matcher.Hit
		want string
	}{
		{matcher.Hit{Socket: ":5001"}, `no uWSGI that qwatch may see listens on ":5001", and not all of them could be looked into: needs CAP_SYS_PTRACE`},
		{matcher.Hit{Socket: "127.0.0.1:5001"}, `somebody listens on "127.0.0.1:5001", and it could not be seen whether that is a uWSGI: needs CAP_SYS_PTRACE`},
		{matcher.Hit{Old: true, Socket: "4"}, "no uWSGI master that qwatch may see has a listening socket with descriptor 4, and not all of them could be looked into: needs CAP_SYS_PTRACE"},
	} {
		if _, err := f.Locate(test.hit); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// A descriptor that is not known answers to no number.
func TestLocateUnknownDescriptor(t *testing.T) {
	s, err := Snapshot{Sockets: []Socket{{ID: SocketID{1, 1}, Address: "@app", FD: -1}}}.Locate(matcher.Hit{Old: true, Socket: "-1", FD: -1})
	if err == nil {
		t.Errorf("found %+v", s)
	}
}

func FuzzLocate(f *testing.F) {
	for _, name := range []string{"127.0.0.1:5000", ":5000", "[::1]:80", "localhost:80", "app.sock", "@app", "3", "", "..", "[::ffff:1.2.3.4]:5", "fe80::1%eth0:80"} {
		f.Add(name, "127.0.0.1:5000", 3, 10, false)
		f.Add("127.0.0.1:5000", name, 3, 10, true)
	}
	f.Fuzz(func(t *testing.T, name, address string, fd, pid int, old bool) {
		sockets := []Socket{
			{ID: SocketID{1, 1}, Family: TCP, Address: address, FD: 3, Master: Process{PID: 10}},
			{ID: SocketID{1, 2}, Family: TCP, Address: "0.0.0.0:5000", FD: 4, Master: Process{PID: 10}},
			{ID: SocketID{1, 3}, Family: Unix, Address: address, FD: 3, Master: Process{PID: 20}},
			{ID: SocketID{1, 4}, Family: TCP6, Address: "[::1]:80", FD: 5, Master: Process{PID: 30}, OtherNetNS: true},
		}
		hit := matcher.Hit{Socket: name, FD: fd, PID: pid, Old: old}
		s, err := Snapshot{Sockets: sockets}.Locate(hit)
		if err != nil {
			// What a stranger wrote cannot begin a line of its own. (The number
			// of the old format is all digits.)
			if s.ID != (SocketID{}) || !old && !strings.Contains(address, "\n") && strings.Contains(err.Error(), "\n") {
				t.Errorf("%+v with error %q", s, err)
			}
			return
		}
		// What is found is one of the sockets, and it has the name or number.
		if !slices.ContainsFunc(sockets, func(o Socket) bool { return o.ID == s.ID }) {
			t.Errorf("found %+v", s)
		}
		if !old && !s.AnswersTo(name) || old && fmt.Sprint(s.FD) != name {
			t.Errorf("%+v does not answer to %q", s, name)
		}
		if again, err := (Snapshot{Sockets: []Socket{s}}).Locate(hit); err != nil || again.ID != s.ID {
			t.Errorf("alone: %+v, %v", again, err)
		}
	})
}
