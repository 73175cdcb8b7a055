package host

import (
	"context"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"qwatch/internal/bounded"
	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// trust says of each socket whether qwatch may act on its master.
func (h *Host) trust(ctx context.Context, options *Options, wait *budget, s *facts.Snapshot) {
	l := &h.lookups
	masters := make(map[uwsgi.Process]*kernel.Process)
	for i := range s.Sockets {
		if o, ok := h.walked.owned[s.Sockets[i].ID.Inode]; ok {
			masters[uwsgi.ProcessOf(s.Sockets[i].Master)] = o.master
		}
	}
	users, unknown := usersOf(options.Users)
	s.Unseen = append(s.Unseen, unknown...)
	known := loginNames{}
	system := systemUIDs()
	standings := make(map[uwsgi.Process]*facts.Standing, len(masters))
	var programs []uwsgi.Process
	var units []string
	for key, p := range masters {
		place := systemd.PlaceOfCgroup(p.Cgroup)
		identity := h.identity(p)
		standings[key] = &facts.Standing{
			UID: p.UID, RealUID: p.RealUID, Unit: place.Unit, Container: identity.Container, Unplaced: identity.Unit.Unseen(), Part: place.Of, InUserSlice: place.User, SliceUID: place.UID,
			Systemd: options.Services != nil, SystemUIDs: system, Users: users,
			Names: known.of(p.UID, p.RealUID, place.UID),
		}
		programs = append(programs, key)
		if place.Unit != "" && options.Services != nil {
			units = append(units, place.Unit)
		}
	}
	wait.wait(ctx, l.program.Start(programs), l.user.Start(units))
	untrusted := make(map[uwsgi.Process]facts.Fact[string], len(standings))
	for key, standing := range standings {
		l.stand(standing, key, options.Processes)
		untrusted[key] = standing.Untrusted()
	}
	noted := make(map[int]bool)
	for i := range s.Sockets {
		socket := &s.Sockets[i]
		socket.Untrusted = untrusted[uwsgi.ProcessOf(socket.Master)]
		if why := socket.Untrusted.Unseen(); why != "" && !noted[socket.Master.PID] {
			noted[socket.Master.PID] = true
			s.Unseen = append(s.Unseen, fmt.Sprintf("whether uWSGI %d is to be trusted: %s", socket.Master.PID, why))
		}
	}
}

// stand adds what had to be asked for.
func (l *lookups) stand(s *facts.Standing, key uwsgi.Process, names []string) {
	switch a := l.program.Get(key); {
	case a.Value.Path == "" || !a.Within(fileAge):
		s.Program, s.Loose = facts.Unknown[string](fmt.Sprint(a.Err)), facts.Unknown[string](fmt.Sprint(a.Err))
	case a.Value.Unseen != nil:
		s.Program, s.Loose = facts.Known(a.Value.Path), facts.Unknown[string](a.Value.Unseen.Error())
	case a.Value.Loose == "":
		s.Program, s.Loose = facts.Known(a.Value.Path), facts.Absent[string]()
	default:
		s.Program, s.Loose = facts.Known(a.Value.Path), facts.Known(a.Value.Loose)
	}
	s.Called = s.Program.Value != "" && slices.Contains(names, filepath.Base(s.Program.Value))
	if s.Unit == "" || !s.Systemd {
		return
	}
	if a := l.user.Get(s.Unit); a.Within(fileAge) {
		s.UnitUID = facts.Known(a.Value)
	} else {
		s.UnitUID = facts.Unknown[int](a.Err.Error())
	}
}

// askUser is who User= of a unit is.
func (h *Host) askUser(ctx context.Context, unit string) (uid int, err error) {
	manager := h.options.Load().Services
	if manager == nil { // by a change of options
		return 0, errNoSystemd
	}
	s, err := manager.Service(ctx, unit)
	switch {
	case err != nil:
		return 0, err
	case s.UID >= 0: // systemd has looked the name up itself, also a dynamic one
		return s.UID, nil
	case s.User == "":
		return 0, nil
	}
	return kernel.UserID(s.User)
}

// usersOf are the uids of users, and what is wrong with those that have none.
func usersOf(names []string) (uids []int, unknown []string) {
	for _, name := range names {
		uid, err := kernel.UserID(name)
		if err != nil {
			unknown = append(unknown, fmt.Sprintf("[probe] users: %v; write the number where /etc/passwd does not hold the name", err))
			continue
		}
		uids = append(uids, uid)
	}
	return uids, unknown
}

// loginNames are the names of uids, as far as /etc/passwd knows them.
type loginNames map[int]string

// maxNames bounds how many are looked up for one look at the host.
const maxNames = 64

func (n loginNames) of(uids ...int) map[int]string {
	for _, uid := range uids {
		if _, ok := n[uid]; ok || uid < 0 || len(n) >= maxNames {
			continue
		}
		n[uid] = ""
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			n[uid] = u.Username
		}
	}
	return n
}

// systemUIDs is the highest uid of a system user, as useradd(8) makes them:
// SYS_UID_MAX of login.defs(5), else one less than UID_MIN, else 999.
func systemUIDs() int {
	for _, path := range []string{"/etc/login.defs", "/usr/etc/login.defs"} { // the second is openSUSE's
		if text, err := bounded.ReadFile(path, 1<<20); err == nil {
			return systemUIDsIn(string(text))
		}
	}
	return systemUIDsIn("")
}

func systemUIDsIn(loginDefs string) int {
	highest, least := 0, 1000
	for line := range strings.Lines(loginDefs) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		n, err := strconv.Atoi(words[1])
		if err != nil || n < 1 || n >= 61184 {
			continue
		}
		switch words[0] {
		case "SYS_UID_MAX":
			highest = n
		case "UID_MIN":
			least = n
		}
	}
	if highest == 0 {
		return least - 1
	}
	return highest
}
