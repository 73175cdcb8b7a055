package apply

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/kernel"
	"qwatch/internal/text"
	"qwatch/internal/uwsgi"
	"qwatch/matcher"
	"qwatch/remediate"
	"qwatch/remediate/facts"
)

const (
	// lookEvery is how often the queue is looked at, listEvery how often the
	// processes: that is a walk over /proc.
	lookEvery = 50 * time.Millisecond
	listEvery = 250 * time.Millisecond
	// settling is how long fewer new workers than there were before may still
	// become more. uWSGI forks them one after the other; in cheaper mode fewer
	// come back.
	settling = 2 * time.Second
	// lateFor is how long a reload is waited for that was not done in time.
	lateFor = 15 * time.Minute
	// askEvery is how often a stats server is asked, answerIn how long it may
	// take: the master answers between its other work.
	askEvery = time.Second
	answerIn = 500 * time.Millisecond
)

// watch looks at one uWSGI from before it is asked for a reload until people are
// served by its new generation, or not.
type watch struct {
	a      *Applier
	r      remediate.Reload
	netns  *kernel.NetNS
	words  *words // nil where none can be read
	end    context.CancelFunc
	served facts.Served

	pidfd  int // of the master
	pid    int
	image  uint64
	old    workers         // handles on the old generation, as far as it is there
	before []facts.Process // all children there were
	listed time.Time       // when the children were listed
	moved  time.Time       // when a worker came or went last
	fresh  []facts.Process
	stood  []facts.Process // the new generation, as it stood
	known  map[int]bool    // pids of this uWSGI, as its lines may name them

	mu    sync.Mutex
	stats facts.Fact[facts.Counted]
}

// newWatch begins to watch, before anything is asked for. It refuses where the
// outcome could not be seen.
func (a *Applier) newWatch(r remediate.Reload, pidfd int) (w *watch, err error) {
	s := r.Socket
	ctx, end := context.WithCancel(context.Background())
	w = &watch{a: a, r: r, end: end, pidfd: pidfd, pid: s.Master.PID, known: map[int]bool{}}
	w.know(w.pid)
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.netns, err = openNetNS(s); err != nil {
		return w, err
	}
	if w.before, err = a.children(w.pid); err != nil {
		return w, err
	}
	if w.old, err = openWorkers(s.Workers, w.before); err != nil {
		return w, err
	}
	if len(w.old) == 0 {
		return w, fmt.Errorf("uWSGI %d has no workers: the end of a reload could not be seen", w.pid)
	}
	for _, p := range w.before {
		w.know(p.PID)
	}
	if st, err := kernel.ReadStat(w.pid); err == nil {
		w.image = st.Image
	}
	mode, known := s.Config.Mode.Get()
	if !known {
		return w, fmt.Errorf("uWSGI %d is not reloaded: how it is configured to reload is not known: %s", w.pid, s.Config.Mode.Unseen())
	}
	before := len(w.old)
	w.served = facts.Served{Before: before, Least: mode.Least(before), Mode: mode, Forked: !r.Way.Wholly(s) && !mode.Lazy && !mode.LazyApps, Intake: facts.NewIntake(s.SoleListener), Listens: true}
	if err := w.listen(ctx); err != nil {
		return w, fmt.Errorf("uWSGI %d is not reloaded: whether it has loaded its app then could not be seen: %w", w.pid, err)
	}
	return w, nil
}

// know adds a process of this uWSGI, by the number too that it calls itself in a
// container.
func (w *watch) know(pid int) { w.known[pid], w.known[kernel.OwnPID(pid)] = true, true }

// listen opens whatever tells whether the app is loaded; one is enough.
func (w *watch) listen(ctx context.Context) error {
	sight, known := w.r.Socket.Sight.Get()
	if !known {
		return errors.New(w.r.Socket.Sight.Unseen())
	}
	heard := newWords(w.a.sharesLog(w.netns, w.r.Socket.Master, sight))
	var failed error
	if sight.Files {
		pid := w.pid
		open := func() ([]kernel.OpenFile, error) { return kernel.OpenWritten(pid, maxLogs) }
		if err := heard.hearFiles(ctx, open); err != nil {
			sight.Files, failed = false, fmt.Errorf("its log: %w", err)
		}
	}
	if path := sight.Followed; path != "" {
		open := func() ([]kernel.OpenFile, error) {
			f, err := kernel.OpenRegular(path)
			if err != nil {
				return nil, err
			}
			return []kernel.OpenFile{f}, nil
		}
		if err := heard.hearFiles(ctx, open); err != nil {
			sight.Followed, failed = "", err
		}
	}
	if sight.Journal != "" {
		if err := heard.hearJournal(ctx, w.a.Follow, sight.Journal); err != nil {
			sight.Journal, failed = "", fmt.Errorf("the journal of %s: %w", w.r.Socket.Sight.Value.Journal, err)
		}
	}
	if sight.Words() {
		w.words = heard
		w.served.Prior = heard.of(w.known, heard.prior)
	}
	if sight.Stats != "" {
		asking, cancel := context.WithTimeout(ctx, answerIn)
		defer cancel()
		stats, err := uwsgi.ReadStats(asking, sight.Stats)
		w.served.Stats[0] = facts.Known(stats.Counted())
		if err != nil {
			failed = fmt.Errorf("its stats server %s: %w", sight.Stats, err)
			sight.Stats, w.served.Stats[0] = "", facts.Unknown[facts.Counted](err.Error())
		} else {
			go w.ask(ctx, sight.Stats)
		}
	}
	w.served.Sight = sight
	if sight == (facts.Sight{}) {
		return failed
	}
	return nil
}

// ask asks the stats server again and again, until ctx ends.
func (w *watch) ask(ctx context.Context, address string) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		asking, cancel := context.WithTimeout(ctx, answerIn)
		stats, err := uwsgi.ReadStats(asking, address)
		cancel()
		w.mu.Lock()
		if w.stats = facts.Known(stats.Counted()); err != nil {
			w.stats = facts.Unknown[facts.Counted](err.Error())
		}
		w.mu.Unlock()
	}
}

func (w *watch) close() {
	w.end()
	w.old.close()
	w.old = nil
	if w.netns != nil {
		w.netns.Close()
		w.netns = nil
	}
	if w.pidfd >= 0 {
		unix.Close(w.pidfd)
		w.pidfd = -1
	}
}

// count counts what a reload would cut.
func (w *watch) count() {
	address, err := netip.ParseAddrPort(w.r.Socket.Address)
	if err != nil || !w.served.Mode.CutsAll() {
		return
	}
	for _, p := range w.before {
		// A worker may hold a connection that it does not serve yet.
		w.served.InFlight += min(kernel.Established(p.PID, address.Port()), w.served.Mode.Cores)
	}
}

// order asks for the reload. systemd answers when it is done, and meanwhile there
// is something to see. That its reload has failed may have another reason: a unit
// may do more than one thing at it, and so it is looked whether uWSGI reloads.
func (w *watch) order(ctx context.Context) error {
	if w.r.Way.Kind != remediate.WaySystemd {
		return w.a.order(ctx, w.pidfd, w.r)
	}
	answer := make(chan error, 1)
	go func() { answer <- w.a.order(ctx, -1, w.r) }()
	var failed error
	err := w.until(ctx, func() bool {
		select {
		case failed = <-answer:
			return true
		default:
			return false
		}
	})
	if err != nil || failed == nil { // not done in time, as run finds too
		return nil
	}
	begun := func() bool { return w.served.Renewed || w.served.Left < w.served.Before || w.served.Ended != "" }
	wait, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	if w.until(wait, begun) != nil {
		return failed
	}
	return nil
}

// until looks again and again, until done says so or ctx ends.
func (w *watch) until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := w.look(); err != nil {
			return err
		}
		if done() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look takes in what there is to see now.
func (w *watch) look() error {
	now := time.Now()
	s := &w.served
	s.Seen = now
	w.lookAtQueue(now)
	ended, err := readable(append([]int{w.pidfd}, w.old...), 0)
	if err != nil {
		return err
	}
	var left workers
	for i, fd := range w.old {
		if ended[1+i] {
			unix.Close(fd)
		} else {
			left = append(left, fd)
		}
	}
	changed := len(left) != len(w.old)
	if w.old, s.Left = left, len(left); changed {
		w.moved = now // another will come in its place
	}
	if ended[0] && s.Ended == "" && !w.adopt() {
		s.Ended = "the master has ended"
	}
	if s.Ended == "" && (changed || now.Sub(w.listed) >= listEvery) {
		if err := w.list(now); err != nil {
			return err
		}
	}
	if w.words != nil {
		s.Words = w.words.of(w.known, w.words.said)
	}
	w.mu.Lock()
	s.Stats[2] = w.stats
	w.mu.Unlock()
	s.Renewed = s.Renewed || w.renewed()
	return nil
}

// lookAtQueue looks at the socket.
func (w *watch) lookAtQueue(now time.Time) {
	socket := w.r.Socket
	look := facts.Look{At: now, Opens: facts.Absent[uint64](), Drops: facts.Absent[uint32](), Answers: w.served.Words.Of[matcher.WordAnswered]}
	if socket.Family != facts.Unix {
		if opens, err := w.netns.Opens(); err == nil {
			look.Opens = facts.Known(opens)
		}
	}
	all, err := w.netns.ListenersOf(kernel.Family(socket.Family))
	if err != nil {
		return // what could not be looked at says nothing
	}
	if i := slices.IndexFunc(all, func(l kernel.Listener) bool { return l.Inode == socket.ID.Inode }); i >= 0 {
		look.Listens, look.Length = true, all[i].Length
		if all[i].Drops >= 0 {
			look.Drops = facts.Known(uint32(all[i].Drops))
		}
		if socket.Family == facts.Unix {
			if clients, err := w.netns.Waiting(socket.ID.Inode); err == nil {
				look.Clients, look.Length = clients, len(clients)
			}
		}
	}
	s := &w.served
	if s.Listens = look.Listens; !look.Listens {
		s.Bound = w.bound(all)
	}
	s.Intake.Add(look)
	if !s.Stood.IsZero() {
		s.Watched.Add(look)
	}
}

// bound is where the master listens, of these.
func (w *watch) bound(all []kernel.Listener) (addresses []string) {
	held, _ := kernel.Sockets(w.pid)
	for _, l := range all {
		if _, ok := held[l.Inode]; ok {
			addresses = append(addresses, text.Line(l.Address()))
		}
	}
	return addresses
}

// list looks at the processes.
func (w *watch) list(now time.Time) error {
	children, err := w.a.children(w.pid)
	if err != nil {
		return err
	}
	w.listed = now
	fresh := slices.DeleteFunc(children, func(c facts.Process) bool {
		if slices.ContainsFunc(w.before, c.Same) {
			return true
		}
		w.know(c.PID)
		// Routers, mules and spoolers do not hold the socket.
		held, err := kernel.Sockets(c.PID)
		_, holds := held[w.r.Socket.ID.Inode]
		return err == nil && !holds && w.served.Listens
	})
	if !slices.EqualFunc(fresh, w.fresh, facts.Process.Same) {
		w.fresh, w.moved = fresh, now
	}
	s := &w.served
	s.After, s.Gone = len(fresh), 0
	for _, p := range w.stood {
		if !slices.ContainsFunc(fresh, p.Same) {
			s.Gone++
		}
	}
	return nil
}

// renewed reports whether it was a reload that has made the new workers: the
// master has executed itself anew, or uWSGI has said so of each of them.
func (w *watch) renewed() bool {
	s := &w.served
	if st, err := kernel.ReadStat(w.pid); err == nil && st.Image != w.image && st.Image != 0 && w.image != 0 {
		return true
	}
	return s.ByWords(w.r.Way.InTurn(w.r.Socket))
}

// adopt finds the master that holds the socket after the one before it has ended:
// uWSGI forks a second one on request (the letter f on its master FIFO).
func (w *watch) adopt() bool {
	all, _, err := kernel.Processes(w.a.processes, w.netns)
	if err != nil {
		return false
	}
	for _, p := range all {
		_, holds := p.Sockets[w.r.Socket.ID.Inode]
		below := slices.ContainsFunc(all, func(o kernel.Process) bool { return o.PID == p.PPID })
		alone := !slices.ContainsFunc(all, func(o kernel.Process) bool { return o.PPID == p.PID })
		orphan := alone && uwsgi.IsWorker(p.Signals) // of the master that has ended
		if !holds || below || orphan || p.PID == w.pid {
			continue
		}
		fd, err := openProcess(facts.Process{PID: p.PID, Start: p.Start})
		if err != nil {
			continue
		}
		unix.Close(w.pidfd)
		w.pidfd, w.pid, w.image = fd, p.PID, 0
		w.know(p.PID)
		w.served.Renewed = true
		return true
	}
	return false
}

// stands reports whether there is nothing more to wait for: the new generation
// stands, or fewer workers do and no more come.
func (w *watch) stands() bool {
	s := &w.served
	still := w.served.Seen.Sub(w.moved) >= settling
	switch {
	case s.Stands() && (s.After >= s.Before || still):
		return true
	case s.Ended == "" && s.Renewed && s.Left == 0 && s.Listens && s.After > 0 && s.After < s.Least && still:
		return s.Seen.Sub(w.moved) >= 2*settling
	}
	return false
}

// run watches after the reload was asked for: first until the new generation
// stands, which timed bounds, then whether it serves people.
func (w *watch) run(ctx, timed context.Context) remediate.Outcome {
	s := &w.served
	err := w.until(timed, func() bool { _, broken := s.Broken(); return broken || w.stands() })
	if _, broken := s.Broken(); err == nil && !broken {
		err = w.serve(ctx)
	}
	fault, bad := s.Verdict()
	seen := *s
	seen.Intake = s.Intake.Settled()
	o := remediate.Outcome{Result: remediate.Applied, Now: -1, Served: &seen}
	switch {
	case ctx.Err() != nil:
		o.Result, o.Err = remediate.Failed, fmt.Errorf("reload of uWSGI %d (%s): not watched to its end: %w", w.r.Socket.Master.PID, w.r.Way, context.Cause(ctx))
	case err != nil:
		o.Result, o.Err = remediate.Failed, fmt.Errorf("reload of uWSGI %d (%s): %w; %s", w.r.Socket.Master.PID, w.r.Way, err, fault.Why)
		if timed.Err() != nil {
			o.Late = w.late
			return o
		}
	case bad:
		o.Result, o.Err = remediate.Failed, fmt.Errorf("reload of uWSGI %d (%s): %s", w.r.Socket.Master.PID, w.r.Way, fault.Why)
	default:
		o.Note = seen.String()
	}
	w.close()
	return o
}

// serve watches the generation that stands, for longer where nobody has come yet.
func (w *watch) serve(ctx context.Context) error {
	s := &w.served
	s.Stood, w.stood = s.Seen, slices.Clone(w.fresh)
	s.Watched, s.Stats[1] = s.Intake.Since(), s.Stats[2]
	if s.After < s.Least {
		return nil
	}
	from := s.Words
	return w.until(ctx, func() bool {
		s.Later = s.Words.Since(from)
		_, broken := s.Broken()
		over := s.Seen.Sub(s.Stood) - s.Watch(w.a.leastWatch)
		return broken || over >= 0 && (over >= w.a.moreWatch || s.Settled())
	})
}

// late waits on for what was not done in time.
func (w *watch) late(ctx context.Context) remediate.Outcome {
	timed, cancel := context.WithTimeoutCause(ctx, lateFor, fmt.Errorf("not done after %s more", lateFor))
	defer cancel()
	o := w.run(ctx, timed)
	if o.Late = nil; w.netns != nil {
		w.close()
	}
	return o
}
