package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"qwatch/internal/deploy"
	"qwatch/internal/kernel"
	"qwatch/internal/lookup"
	"qwatch/internal/text"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

const (
	// statsDeadline is how long a stats server may take. The master answers
	// between its other work (core/master.c).
	statsDeadline = 300 * time.Millisecond
	// statsEvery is how long an answer serves: each costs the master a
	// connection.
	statsEvery = 2 * time.Second
	// deadline is how long systemd may take, and files.
	deadline = time.Second
	// maxHanging is how many reads of files may hang at a time, each with a
	// thread, of which a service may have few (TasksMax=).
	maxHanging = 32
	// maxForeign is how many of those may be about processes of one user of no
	// system's: he may make each take long.
	maxForeign = 2
	// threadsPatience is how long one Observe waits for the threads of all
	// workers at least: there may be thousands, and without them a stall cannot
	// be told from a burst.
	threadsPatience = 300 * time.Millisecond
	// fileAge is how long what was read of a file stands in for what does not
	// answer now.
	fileAge = 10 * time.Second
	// userAge is how long a unit's User= serves: a running one keeps its user.
	userAge = 30 * time.Second
)

// lookups are the questions that may never be answered: a server may accept and
// be silent, a file may lie on a file system that is gone, and the command line
// of a process, its environment and its threads cannot be read while it holds
// the lock of its memory or is in execve(2).
type lookups struct {
	claims  lookup.Table[uwsgi.Process, uwsgi.Claim]
	config  lookup.Table[uwsgi.Process, facts.Config]
	deploys lookup.Table[deployKey, facts.Deploy]
	logs    lookup.Table[uwsgi.Process, written]
	threads lookup.Table[uwsgi.Process, threads]
	unit    lookup.Table[unitKey, systemd.SocketUnit]
	// activated are the .socket units of a service.
	activated lookup.Table[string, []systemd.SocketUnit]

	stats   lookup.Table[string, facts.Stats]
	rights  lookup.Table[facts.Step, struct{}]
	own     lookup.Table[facts.Step, struct{}] // of Cannot
	refused lookup.Table[string, facts.Config]
	program lookup.Table[uwsgi.Process, kernel.Program]
	user    lookup.Table[string, int] // by unit
	// services is what systemd says of the masters' units.
	services lookup.Table[serviceKey, facts.Service]

	answeredBy map[string]statsSource // by the stats server's address
}

// threads are what the threads of one process do.
type threads struct {
	waits    facts.Waits
	switches uint64
}

// unitKey is a socket and what systemd is asked about it. A socket keeps its
// unit for life, so that an answer is never asked for again.
type unitKey struct {
	id      facts.SocketID
	bound   facts.Address
	service string
}

// statsSource is which master gave the answer that was asked for at a time.
type statsSource struct {
	at     time.Time
	master facts.Process
}

var errNoSystemd = errors.New("no systemd runs here")

func (l *lookups) init(h *Host) {
	share := func(p uwsgi.Process) any {
		if kernel.Foreign(p.UID) {
			return p.UID
		}
		return nil
	}
	slots := lookup.NewSlots(maxHanging, maxForeign)
	l.claims = lookup.Table[uwsgi.Process, uwsgi.Claim]{Deadline: deadline, Slots: slots, Share: share,
		Ask: func(_ context.Context, p uwsgi.Process) (uwsgi.Claim, error) {
			return uwsgi.ClaimOf(p, h.options.Load().Processes), nil
		}}
	l.activated = lookup.Table[string, []systemd.SocketUnit]{Deadline: deadline, Good: socketUnitsAge,
		Ask: func(ctx context.Context, service string) ([]systemd.SocketUnit, error) {
			manager := h.options.Load().SocketUnits
			if manager == nil { // by a change of options
				return nil, errNoSystemd
			}
			return manager.SocketUnits(ctx, service)
		}}
	l.config = lookup.Table[uwsgi.Process, facts.Config]{Deadline: deadline, Slots: slots, Share: share,
		Ask: func(_ context.Context, p uwsgi.Process) (facts.Config, error) {
			return uwsgi.Running(p, h.options.Load().Processes, h.options.Load().ReloadPath), nil
		}}
	l.deploys = lookup.Table[deployKey, facts.Deploy]{Deadline: deploysDeadline, Serves: h.deployServes, Slots: slots, Share: func(k deployKey) any { return share(k.Process) },
		Ask: func(_ context.Context, k deployKey) (facts.Deploy, error) {
			return deploy.Look(k.Process, h.options.Load().Processes, &h.memory), nil
		}}
	l.logs = lookup.Table[uwsgi.Process, written]{Deadline: deadline, Slots: slots, Share: share,
		Ask: func(_ context.Context, p uwsgi.Process) (written, error) { return askWritten(p) }}
	l.threads = lookup.Table[uwsgi.Process, threads]{Deadline: deadline, Slots: slots, Share: share,
		Ask: func(_ context.Context, p uwsgi.Process) (threads, error) {
			waits, switches := kernel.Threads(p.PID)
			return threads{facts.Waits(waits), switches}, nil
		}}
	const forLife = 1<<63 - 1
	l.unit = lookup.Table[unitKey, systemd.SocketUnit]{Deadline: deadline, Good: forLife,
		Ask: func(ctx context.Context, k unitKey) (systemd.SocketUnit, error) {
			manager := h.options.Load().SocketUnits
			if manager == nil { // by a change of options
				return systemd.SocketUnit{}, errNoSystemd
			}
			units, err := manager.SocketUnits(ctx, k.service)
			for _, u := range units {
				if slices.ContainsFunc(u.Listen, k.bound.IsListen) {
					return u, nil
				}
			}
			return systemd.SocketUnit{}, err
		}}
	l.stats = lookup.Table[string, facts.Stats]{Deadline: statsDeadline, Good: statsEvery, Bad: statsEvery, Ask: uwsgi.ReadStats}
	try := func(_ context.Context, step facts.Step) (struct{}, error) {
		return struct{}{}, h.triedRights().try(step)
	}
	l.rights = lookup.Table[facts.Step, struct{}]{Deadline: deadline, Slots: slots, Ask: try}
	l.own = lookup.Table[facts.Step, struct{}]{Deadline: deadline, Slots: slots, Ask: try}
	l.refused = lookup.Table[string, facts.Config]{Deadline: deadline, Slots: slots, Ask: h.askRefused}
	l.program = lookup.Table[uwsgi.Process, kernel.Program]{Deadline: deadline, Slots: slots, Share: share,
		Ask: func(_ context.Context, p uwsgi.Process) (kernel.Program, error) { return kernel.ProgramOf(p.PID) }}
	l.user = lookup.Table[string, int]{Deadline: deadline, Good: userAge, Ask: h.askUser}
	l.services = lookup.Table[serviceKey, facts.Service]{Deadline: deadline, Good: serviceAge, Ask: h.askService}
}

// forget drops all questions; those that can be are broken off.
func (l *lookups) forget() {
	l.claims.Start(nil)
	l.activated.Start(nil)
	l.config.Start(nil)
	l.deploys.Start(nil)
	l.logs.Start(nil)
	l.threads.Start(nil)
	l.unit.Start(nil)
	l.stats.Start(nil)
	l.rights.Start(nil)
	l.program.Start(nil)
	l.user.Start(nil)
	l.services.Start(nil)
}

// budget is how long may still be waited for answers.
type budget struct{ left time.Duration }

// wait waits for all of them.
func (b *budget) wait(ctx context.Context, waits ...func(context.Context)) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, b.left)
	defer cancel()
	for _, w := range waits {
		w(ctx)
	}
	b.left -= time.Since(began)
}

// fill adds to a snapshot what has to be asked for.
func (h *Host) fill(ctx context.Context, options *Options, wait *budget, s *facts.Snapshot) {
	l := &h.lookups
	var masters, workers []uwsgi.Process
	var units []unitKey
	for i := range s.Sockets {
		socket := &s.Sockets[i]
		masters = append(masters, uwsgi.ProcessOf(socket.Master))
		if o := h.walked.owned[socket.ID.Inode]; o.emperor != nil {
			masters = append(masters, uwsgi.ProcessOf(h.identity(o.emperor)))
		}
		for _, w := range socket.Workers {
			workers = append(workers, uwsgi.ProcessOf(w.Process))
		}
		if options.SocketUnits != nil && socket.Master.Unit.State == facts.StateKnown {
			units = append(units, keyOf(socket))
		}
	}
	var steps []facts.Step
	if !options.AssumeRights {
		steps = h.rights.Load().steps()
	}
	h.watch(options)
	h.reloadable = reloadable(options, s.Sockets)
	asked := []func(context.Context){l.config.Start(masters), l.deploys.Start(h.deployKeys()), l.logs.Start(masters), l.unit.Start(units), l.services.Start(servicesOf(options, s.Sockets)),
		l.stats.Start(options.Stats), l.rights.Start(steps)}
	(&budget{max(wait.left, threadsPatience)}).wait(ctx, l.threads.Start(workers))
	wait.left = max(wait.left, options.Patience/4) // also where the command lines have taken all of it
	wait.wait(ctx, asked...)
	s.Cannot = l.cannot(steps)
	noted, late := make(map[int]bool), 0
	for i := range s.Sockets {
		socket := &s.Sockets[i]
		l.fillMaster(socket)
		if o := h.walked.owned[socket.ID.Inode]; o.emperor != nil { // it binds it anew, with its own listen
			c := l.configOf(h.identity(o.emperor))
			own := socket.Config.Listen // which its own reload meets
			socket.Config.Listen, socket.Config.File, socket.Config.Own = c.Listen, c.File, &own
		}
		socket.Deploy = h.deploy(socket)
		socket.Ways.Service = l.service(options, socket)
		socket.Ways.NoSignal = noSignal(options, socket.Master)
		if unread := socket.Config.Unread(); unread != "" && !noted[socket.Master.PID] {
			noted[socket.Master.PID] = true
			note(s, fmt.Sprintf("the configuration of uWSGI %d", socket.Master.PID), errors.New(unread))
		}
		for j := range socket.Workers {
			w := &socket.Workers[j]
			a := l.threads.Get(uwsgi.ProcessOf(w.Process))
			if w.Late = a.Late; a.Err == nil { // what was a while ago says nothing
				w.Waits, w.Switches = a.Value.waits, a.Value.switches
			}
			if w.Late {
				late++
			}
		}
		if socket.Unit = l.socketUnit(options, socket); socket.Unit.Unseen() != "" {
			note(s, "the .socket unit of "+socket.Name(), errors.New(socket.Unit.Unseen()))
		}
	}
	if late > 0 {
		s.Unseen = append(s.Unseen, "what "+text.Plural(late, "worker waits", "workers wait")+" for: /proc has not answered in time")
	}
	l.fillStats(s, options.Stats)
	for i := range s.Sockets {
		s.Sockets[i].Sight = l.sight(options, &s.Sockets[i], s.Cannot[facts.StepJournal])
	}
}

// socketUnit is the .socket unit that holds a socket. Only a service has one. What
// is known of it without asking stands where systemd does not answer.
func (l *lookups) socketUnit(options *Options, s *facts.Socket) facts.Fact[facts.SocketUnit] {
	if why := s.Master.Unit.Unseen(); why != "" {
		return facts.Unknown[facts.SocketUnit](why)
	}
	if options.SocketUnits == nil || s.Master.Unit.IsAbsent() {
		return facts.Absent[facts.SocketUnit]()
	}
	a := l.unit.Get(keyOf(s))
	switch {
	case a.Err != nil && s.Unit.IsAbsent():
		return s.Unit
	case a.Err != nil:
		return facts.Unknown[facts.SocketUnit](a.Err.Error())
	case a.Value.Unit == "":
		return facts.Absent[facts.SocketUnit]()
	}
	backlog := facts.Unknown[int]("systemd did not tell it")
	if a.Value.Backlog > 0 {
		backlog = facts.Known(int(a.Value.Backlog))
	}
	return facts.Known(facts.SocketUnit{Name: a.Value.Unit, Backlog: backlog})
}

// cannot says why those of the steps that are not possible are not.
func (l *lookups) cannot(steps []facts.Step) map[facts.Step]facts.Fact[string] {
	cannot := facts.Allowed()
	for _, step := range steps {
		switch a := l.rights.Get(step); {
		case a.Within(fileAge):
		case a.Late:
			cannot[step] = facts.Unknown[string](a.Err.Error())
		default:
			cannot[step] = facts.Known(a.Err.Error())
		}
	}
	return cannot
}

func keyOf(s *facts.Socket) unitKey { return unitKey{s.ID, s.Bound(), s.Master.Unit.Value} }

// fillMaster adds what the socket's master has configured and open.
func (l *lookups) fillMaster(s *facts.Socket) {
	s.Config = l.configOf(s.Master)
	if logs := l.logs.Get(uwsgi.ProcessOf(s.Master)); logs.Within(fileAge) {
		s.Logs = logs.Value.paths
	}
}

func (l *lookups) configOf(master facts.Process) facts.Config {
	c := l.config.Get(uwsgi.ProcessOf(master))
	if !c.Within(fileAge) {
		return uwsgi.Unseen(c.Err)
	}
	return c.Value
}

// fillStats adds what the stats servers say. A server is one of the listening
// sockets of the master that it tells of. Its last good answer stays, with its
// time, as long as that is the same master.
func (l *lookups) fillStats(s *facts.Snapshot, addresses []string) {
	sources := make(map[string]statsSource, len(addresses))
	for _, address := range addresses {
		a := l.stats.Get(address)
		plain, http := strings.CutPrefix(address, "http://")
		switch {
		case a.Late && a.At.IsZero() && !http:
			s.Unseen = append(s.Unseen, fmt.Sprintf("stats server %s: %v; if it speaks HTTP (--stats-http), write http://%s", address, a.Err, address))
		case a.Late && !a.At.IsZero():
			s.Unseen = append(s.Unseen, fmt.Sprintf("stats server %s has not answered since %s", address, a.Value.At.UTC().Format(time.RFC3339)))
		case a.Err != nil:
			note(s, "stats server "+address, a.Err)
		}
		if a.At.IsZero() {
			continue
		}
		server := slices.IndexFunc(s.Sockets, func(s facts.Socket) bool { return !s.OtherNetNS && s.AnswersTo(plain) })
		if server < 0 {
			note(s, "whose numbers "+address+" gives", errors.New("no uWSGI master that qwatch may see listens there"))
			continue
		}
		source := statsSource{a.At, s.Sockets[server].Master}
		if before, ok := l.answeredBy[address]; ok && before.at.Equal(a.At) {
			source = before
		}
		sources[address] = source
		stats := a.Value
		for i := range s.Sockets {
			if socket := &s.Sockets[i]; socket.Master.Same(source.master) {
				socket.Stats = &stats
			}
		}
	}
	l.answeredBy = sources
}
