package facts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"qwatch/internal/text"
)

// Standing is what the host shows of a uWSGI master, as far as it tells whether
// qwatch may act on it: anybody can run a program called uwsgi.
type Standing struct {
	// UID is the effective uid, RealUID that of who started it where it is another
	// (set-user-ID); -1 where it was not seen.
	UID, RealUID int
	// Unit is the service in whose cgroup it runs, and Container the container, ""
	// for none. Unplaced says why they are not known, "" where they are.
	Unit, Container, Unplaced string
	// Part is the part of the cgroup tree in which it runs: "session-3.scope",
	// "user@1001.service", "" for none.
	Part string
	// InUserSlice says that this is below a user's slice, and SliceUID whose;
	// such a user may name what is below as he likes.
	InUserSlice bool
	SliceUID    int
	// Systemd is true where the system's own systemd runs here.
	Systemd bool
	// SystemUIDs is the highest uid of those that belong to the system's own
	// users (login.defs(5), SYS_UID_MAX).
	SystemUIDs int
	// UnitUID is who User= of the unit is.
	UnitUID Fact[int]
	// Program is the path of the executable, Called whether its name is one of
	// probe.processes.
	Program Fact[string]
	Called  bool
	// Loose says who besides root can have changed the executable ("it is uid
	// 1001's"); absent where nobody can.
	Loose Fact[string]
	// Users are the uids that probe.users names, Names the login names of uids.
	Users []int
	Names map[int]string
}

// Untrusted says why qwatch does not act on this uWSGI: absent where it may,
// known where it may not, unknown where that could not be seen. Of a container
// the policy decides, and it is absent here.
func (s *Standing) Untrusted() Fact[string] {
	for _, uid := range []int{s.UID, s.RealUID} {
		if uid < 0 {
			return Unknown[string]("its user could not be seen")
		}
	}
	switch {
	case s.Unplaced != "":
		return Unknown[string]("its cgroup: " + s.Unplaced)
	case s.Container != "" && s.InUserSlice && !slices.Contains(s.Users, s.SliceUID):
		return s.refuse(s.SliceUID, "it is a container of %s's own", s.user(s.SliceUID))
	case s.Container != "":
		return Absent[string]()
	case slices.Contains(s.Users, s.UID) && (slices.Contains(s.Users, s.RealUID) || s.system(s.RealUID)):
		return Absent[string]()
	case !s.Systemd:
		return s.withoutSystemd()
	case s.Unit == "" && s.Part == "":
		return s.refuse(s.UID, "it is %s's own process, of no service", s.user(s.UID))
	case s.Unit == "":
		return s.refuse(s.UID, "it is %s's own process (%s)", s.user(s.UID), text.Line(s.Part))
	case RunsOthers(s.Unit):
		return s.refuse(s.UID, "it was started by %s, which runs what others tell it", s.Unit)
	}
	for _, uid := range []int{s.UID, s.RealUID} {
		unit, known := s.UnitUID.Get()
		switch {
		case s.system(uid) || known && uid == unit:
		case s.UnitUID.State == StateUnknown:
			return Unknown[string](fmt.Sprintf("whether User= of %s is %s: %s", s.Unit, s.user(uid), s.UnitUID.Unseen()))
		default:
			return s.refuse(uid, "%s is neither root, nor a system user, nor User= of %s", s.user(uid), s.Unit)
		}
	}
	return s.program()
}

// withoutSystemd is Untrusted where no unit can tell: whose the executable is
// must do then.
func (s *Standing) withoutSystemd() Fact[string] {
	for _, uid := range []int{s.UID, s.RealUID} {
		if !s.system(uid) {
			return s.refuse(uid, "%s is neither root nor a system user, and no systemd runs here that could have started it", s.user(uid))
		}
	}
	if why, loose := s.Loose.Get(); loose {
		return s.refuse(s.UID, "no systemd runs here, and the executable is not root's alone: %s", why)
	}
	if f := s.program(); !f.IsAbsent() || s.Loose.IsAbsent() {
		return f
	}
	return Unknown[string]("whose its executable is: " + s.Loose.Unseen())
}

// program refuses what only calls itself uWSGI: any program gives itself a comm
// (PR_SET_NAME).
func (s *Standing) program() Fact[string] {
	switch path, known := s.Program.Get(); {
	case !known:
		return Unknown[string]("its executable: " + s.Program.Unseen())
	case !s.Called:
		return s.refuse(s.UID, "only its name (comm) says that it is a uWSGI, it executes %s", text.Line(path))
	}
	return Absent[string]()
}

// refuse says why, and which key changes that.
func (s *Standing) refuse(uid int, format string, args ...any) Fact[string] {
	return Known(fmt.Sprintf(format, args...) + fmt.Sprintf("; [probe] users = [%s] trusts it", strconv.Quote(s.name(uid))))
}

func (s *Standing) name(uid int) string {
	if name := s.Names[uid]; name != "" {
		return name
	}
	return strconv.Itoa(uid)
}

func (s *Standing) user(uid int) string {
	if name := s.Names[uid]; name != "" {
		return fmt.Sprintf("uid %d (%s)", uid, name)
	}
	return fmt.Sprintf("uid %d", uid)
}

// system reports whether a uid is root's, a system user's, or one that systemd
// has taken for a DynamicUser= (61184 to 65519, systemd.exec(5)): where no systemd
// runs, anybody may have one of those. 65534 is nobody's, or of somebody whom
// this user namespace does not know.
func (s *Standing) system(uid int) bool {
	return uid >= 0 && uid <= s.SystemUIDs || s.Systemd && uid >= 61184 && uid <= 65519
}

// othersPrograms are the services that run what other people tell them: jobs,
// logins, builds.
var othersPrograms = strings.Fields(
	"user cron crond cronie fcron bcron anacron at atd incron incrond " +
		"ssh sshd dropbear telnetd getty serial-getty console-getty container-getty autovt rescue emergency debug-shell " +
		"gdm gdm3 lightdm sddm xdm display-manager greetd ly " +
		"slurmd slurmstepd pbs_mom condor sge_execd jupyterhub jenkins gitlab-runner buildkite-agent teamcity-agent")

// RunsOthers reports whether a service runs other people's programs: what is
// below it is not the service's own. systemd-cron makes a unit cron-… of each
// job, GitHub's runner calls itself actions.runner.…
func RunsOthers(unit string) bool {
	name := strings.TrimSuffix(unit, ".service")
	template, _, _ := strings.Cut(name, "@")
	return slices.Contains(othersPrograms, template) || strings.HasPrefix(name, "cron-") || strings.HasPrefix(name, "actions.runner.")
}
