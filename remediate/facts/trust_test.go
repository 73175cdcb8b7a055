package facts

import (
	"strings"
	"testing"
)

func TestUntrusted(t *testing.T) {
	service := func(change func(*Standing)) Standing {
		s := Standing{
			UID: 33, RealUID: 33, Unit: "app.service", Part: "app.service", SliceUID: -1,
			Systemd: true, SystemUIDs: 999, Program: Known("/usr/bin/uwsgi-core"), Called: true, Loose: Absent[string](),
			UnitUID: Known(0), Names: map[int]string{1001: "alice"},
		}
		change(&s)
		return s
	}
	of := func(uid int) func(*Standing) { return func(s *Standing) { s.UID, s.RealUID = uid, uid } }
	tests := []struct {
		name string
		Standing
		want string // "" for trusted; "?…" for unknown
	}{
		{"a system user's service", service(func(*Standing) {}), ""},
		{"root's service", service(of(0)), ""},
		{"DynamicUser=", service(of(61184)), ""},
		{"nobody", service(of(65534)), "uid 65534 is neither root, nor a system user, nor User= of app.service"},
		{"User=", service(func(s *Standing) { of(1001)(s); s.UnitUID = Known(1001) }), ""},
		{"another than User=", service(of(1001)), `uid 1001 (alice) is neither root, nor a system user, nor User= of app.service; [probe] users = ["alice"] trusts it`},
		{"no User=", service(func(s *Standing) { of(1002)(s); s.UnitUID = Absent[int]() }), `; [probe] users = ["1002"] trusts it`},
		{"User= was not told", service(func(s *Standing) { of(1001)(s); s.UnitUID = Unknown[int]("no answer") }), "?whether User= of app.service is uid 1001 (alice): no answer"},
		{"User= was not told to root", service(func(s *Standing) { of(0)(s); s.UnitUID = Unknown[int]("no answer") }), ""},
		{"named", service(func(s *Standing) { of(1001)(s); s.Users = []int{1001} }), ""},
		{"named, whatever it executes", service(func(s *Standing) {
			of(1001)(s)
			s.Users, s.Called, s.Unit, s.Program = []int{1001}, false, "", Unknown[string]("no right")
		}), ""},
		{"set-user-ID to one who is named", service(func(s *Standing) { s.UID, s.RealUID, s.Users = 1001, 1002, []int{1001} }), "uid 1001 (alice) is neither"},
		{"set-user-ID to root", service(func(s *Standing) { s.UID, s.RealUID = 0, 1001 }), "uid 1001 (alice) is neither"},
		{"no uid", service(of(-1)), "?its user could not be seen"},
		{"no cgroup was shown", service(func(s *Standing) { s.Unplaced = "permission denied" }), "?its cgroup: permission denied"},
		{"a session", service(func(s *Standing) {
			of(1001)(s)
			s.Unit, s.Part, s.InUserSlice, s.SliceUID = "", "session-3.scope", true, 1001
		}),
			`it is uid 1001 (alice)'s own process (session-3.scope); [probe] users = ["alice"] trusts it`},
		{"root's session", service(func(s *Standing) { of(0)(s); s.Unit, s.Part = "", "session-1.scope" }), `uid 0's own process (session-1.scope); [probe] users = ["0"] trusts it`},
		{"no cgroup", service(func(s *Standing) { s.Unit, s.Part = "", "" }), "uid 33's own process, of no service"},
		{"cron", service(func(s *Standing) { s.Unit = "cron.service" }), `it was started by cron.service, which runs what others tell it; [probe] users = ["33"] trusts it`},
		{"only a name", service(func(s *Standing) { s.Called, s.Program = false, Known("/usr/bin/python3.11") }), "only its name (comm) says that it is a uWSGI, it executes /usr/bin/python3.11"},
		{"an executable that is not shown", service(func(s *Standing) { s.Called, s.Program = false, Unknown[string]("permission denied") }), "?its executable: permission denied"},
		{"a container", service(func(s *Standing) { of(1001)(s); s.Container, s.Unit = "docker:0123", "" }), ""},
		{"a container of a user's", service(func(s *Standing) { of(100033)(s); s.Container, s.InUserSlice, s.SliceUID = "podman:0123", true, 1001 }),
			`it is a container of uid 1001 (alice)'s own; [probe] users = ["alice"] trusts it`},
		{"a container of a user's who is named", service(func(s *Standing) {
			s.Container, s.InUserSlice, s.SliceUID, s.Users = "podman:0123", true, 1001, []int{1001}
		}), ""},
		{"no systemd", service(func(s *Standing) { s.Systemd, s.Unit = false, "" }), ""},
		{"no systemd, a login user", service(func(s *Standing) { of(1001)(s); s.Systemd = false }), "uid 1001 (alice) is neither root nor a system user, and no systemd runs here"},
		{"no systemd, and a number that it would take for DynamicUser=", service(func(s *Standing) { of(61184)(s); s.Systemd = false }), "uid 61184 is neither root nor a system user"},
		{"no systemd, somebody's executable", service(func(s *Standing) { s.Systemd, s.Loose = false, Known("it is uid 1001's") }), "the executable is not root's alone: it is uid 1001's"},
		{"no systemd, whose executable is not known", service(func(s *Standing) { s.Systemd, s.Loose = false, Unknown[string]("no right") }), "?whose its executable is: no right"},
		{"no systemd, only a name", service(func(s *Standing) { s.Systemd, s.Called = false, false }), "only its name (comm) says"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.Untrusted()
			want, unknown := strings.CutPrefix(tt.want, "?")
			switch {
			case want == "" && !f.IsAbsent(), want != "" && f.IsAbsent(), unknown != (f.State == StateUnknown), !strings.Contains(f.Value+f.Why, want):
				t.Errorf("%+v, want %q", f, tt.want)
			}
		})
	}
}

func TestRunsOthers(t *testing.T) {
	for _, unit := range strings.Fields("user@1001.service cron.service atd.service sshd@1-10.0.0.1:22-10.0.0.2:5000.service getty@tty1.service cron-alice-alice-0.service actions.runner.x.y.service ssh.service") {
		if !RunsOthers(unit) {
			t.Errorf("%s runs its own", unit)
		}
	}
	for _, unit := range strings.Fields("uwsgi.service uwsgi@cron.service supervisor.service cronjobs.service apache2.service") {
		if RunsOthers(unit) {
			t.Errorf("%s runs others' programs", unit)
		}
	}
}
