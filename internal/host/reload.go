package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"qwatch/remediate/facts"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/uwsgiconf"
	"qwatch/remediate"
)

// Units asks the service manager for what it does with a unit. Reload and
// Start return when the job is done, with an error unless it succeeded.
type Units interface {
	// CanReload reports whether the unit says how it is reloaded (ExecReload=).
	CanReload(ctx context.Context, unit string) (bool, error)
	Reload(ctx context.Context, unit string) error
	Start(ctx context.Context, unit string) error
}

var errNoUnits = errors.New("no connection to systemd")

// look is the pause between two looks for new workers, in milliseconds.
const look = 50

// settle is how long fewer new workers than there were before may still become
// more. uWSGI forks them one after the other; in cheaper mode fewer come back.
const settle = 2 * time.Second

// reload asks for a graceful reload and waits for its end, which uWSGI reports
// to nobody: the old workers end, new ones come, the master is the same process
// (it calls execve(2), so pid and start time stay) and its socket listens.
func (h hand) reload(ctx context.Context, a remediate.Reload) remediate.Outcome {
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeoutCause(ctx, a.Timeout, fmt.Errorf("not done after %s", a.Timeout))
	defer cancel()
	began := time.Now()
	master, err := openProcess(a.Socket.Master)
	if err != nil {
		return failure(-1, err)
	}
	defer unix.Close(master)
	if err := h.mayReload(a.Socket); err != nil {
		return failure(-1, err)
	}
	before, err := h.children(a.Socket.Master.PID)
	if err != nil {
		return failed(-1, err)
	}
	old, err := openWorkers(a.Socket.Workers, before)
	if err != nil {
		return failed(-1, err)
	}
	defer old.close()
	if len(old.pids) == 0 {
		return failed(-1, fmt.Errorf("uWSGI %d has no workers: the end of a reload could not be seen", a.Socket.Master.PID))
	}
	how, err := h.ask(ctx, master, a)
	if err != nil {
		return failure(-1, err)
	}
	fresh, err := h.await(ctx, master, a.Socket.Master, old, before)
	if err == nil {
		err = listens(a.Socket)
	}
	if err != nil {
		return failed(-1, fmt.Errorf("reload of uWSGI %d (%s): %w", a.Socket.Master.PID, how, err))
	}
	return remediate.Outcome{
		Result: remediate.Applied, Now: -1,
		Note: fmt.Sprintf("%s: %s after %s", how, plural(fresh, "new worker"), time.Since(began).Round(100*time.Millisecond)),
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// mayReload refuses where the reload would end the application.
func (h hand) mayReload(s facts.Socket) error {
	pid := s.Master.PID
	if !h.isUWSGI(pid) {
		return fmt.Errorf("process %d is not one of %s and is not reloaded", pid, strings.Join(h.processes, ", "))
	}
	// A master ends all on SIGQUIT (core/master.c, master_loop). A worker, or a
	// uWSGI without a master, ignores it.
	master, err := catches(pid, unix.SIGQUIT)
	if err != nil {
		return err
	}
	if !master {
		return fmt.Errorf("uWSGI %d runs without a master process: SIGHUP would end it", pid)
	}
	at, err := exitsOnReload(s.Master)
	switch {
	case at != "":
		return fmt.Errorf("uWSGI %d has exit-on-reload (%s): a reload would end it", pid, at)
	case err != nil:
		return fmt.Errorf("the configuration of uWSGI %d is not known, and with exit-on-reload a reload would end it: %w", pid, err)
	}
	if s.Configured == 0 {
		return nil
	}
	// uWSGI checks its configured listen against somaxconn when it starts, and
	// the exec of a reload is a start (core/uwsgi.c, uwsgi_start).
	space, err := spaceOf(s)
	if err != nil {
		return err
	}
	defer space.close()
	if most := space.limit(make([]byte, 64)); s.Configured > most {
		return fmt.Errorf("uWSGI %d is configured with listen = %d (%s) over net.core.somaxconn = %d: it would refuse to start; raise somaxconn or lower listen first", pid, s.Configured, s.ConfiguredAt, most)
	}
	return nil
}

// catches reports whether a process has a handler for the signal.
func catches(pid int, signal unix.Signal) (bool, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/status"
	b, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			caught, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return caught&(1<<(signal-1)) != 0, err
		}
	}
	return false, fmt.Errorf("%s has no line SigCgt", path)
}

// exitsOnReload tells where exit-on-reload is set for a uWSGI, "" if nowhere.
// The error says what of the configuration is not known.
func exitsOnReload(master facts.Process) (at string, err error) {
	in, done := inputOf(master)
	defer done()
	setting, _ := uwsgiconf.Find(in) // its error is in Unread too
	for _, o := range setting.Options {
		if o.Name == "exit-on-reload" {
			off := slices.Contains([]string{"false", "off", "no", "0"}, strings.ToLower(o.Text)) // uwsgi_opt_true
			switch {
			case o.Unknown != "":
				at = o.At + ", " + o.Unknown
			case !off:
				at = o.At
			case !o.Conditional:
				at = ""
			}
		}
	}
	return at, setting.Unread
}

// isUWSGI is Host.named without the host's lock.
func (h hand) isUWSGI(pid int) bool {
	st, err := readStat(pid)
	if err != nil {
		return false
	}
	exe, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	exe = filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	return slices.Contains(h.processes, st.comm) || slices.Contains(h.processes, exe)
}

// children lists the uWSGI processes below a master, zombies left out.
func (h hand) children(master int) ([]facts.Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []facts.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := readStat(pid)
		if err == nil && st.ppid == master && st.state != 'Z' && h.isUWSGI(pid) {
			found = append(found, facts.Process{PID: pid, Start: st.start, Comm: st.comm})
		}
	}
	return found, nil
}

// oldWorkers are the processes whose end is waited for.
type oldWorkers struct{ pids, fds []int }

func (w *oldWorkers) close() {
	for _, fd := range w.fds {
		unix.Close(fd)
	}
}

// openWorkers takes the workers that the plan saw and that still run. The
// master's other children (HTTP routers, spoolers, mules) do not hold the
// socket, and a chain reload leaves them alone. Where all workers of the plan
// have ended since, it is every child.
func openWorkers(seen []facts.Worker, children []facts.Process) (*oldWorkers, error) {
	some := slices.DeleteFunc(slices.Clone(children), func(c facts.Process) bool {
		return !slices.ContainsFunc(seen, func(w facts.Worker) bool { return w.Same(c) })
	})
	if len(some) == 0 {
		some = children
	}
	w := &oldWorkers{}
	for _, p := range some {
		fd, err := openProcess(p)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			w.close()
			return nil, err
		}
		w.pids, w.fds = append(w.pids, p.PID), append(w.fds, fd)
	}
	return w, nil
}

// ask gives the order to reload, and tells how it was given.
func (h hand) ask(ctx context.Context, master int, a remediate.Reload) (how string, err error) {
	p := a.Socket.Master
	order := a.How
	if order.Method == remediate.MethodAuto {
		order.Method = h.choose(ctx, p)
	}
	how = order.String()
	switch order.Method {
	case remediate.MethodSystemd:
		switch {
		case h.units == nil:
			return how, errNoUnits
		case p.Unit == "":
			return how, fmt.Errorf("uWSGI %d belongs to no systemd unit", p.PID)
		}
		return how, h.units.Reload(ctx, p.Unit)
	case remediate.MethodSignal:
		return how, hangUp(master, p.PID)
	case remediate.MethodFIFO:
		return how, writeFIFO(order.Path, p.PID)
	case remediate.MethodTouch:
		return how, touch(order.Path)
	}
	return how, fmt.Errorf("no way %q to reload; there are auto, signal, systemd, fifo:PATH and touch:PATH", a.How)
}

// choose prefers systemd where the unit says how it is reloaded, so that
// systemd knows of it. A vassal's unit is its emperor's: a reload of that would
// reload all vassals.
func (h hand) choose(ctx context.Context, p facts.Process) remediate.Method {
	if h.units == nil || p.Unit == "" {
		return remediate.MethodSignal
	}
	if st, err := readStat(p.PID); err != nil || h.isUWSGI(st.ppid) {
		return remediate.MethodSignal
	}
	if can, err := h.units.CanReload(ctx, p.Unit); err != nil || !can {
		return remediate.MethodSignal
	}
	return remediate.MethodSystemd
}

// hangUp sends SIGHUP, uWSGI's graceful reload. SIGTERM would be a brutal one.
func hangUp(pidfd, pid int) error {
	err := unix.PidfdSendSignal(pidfd, unix.SIGHUP, nil, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("uWSGI %d has ended: %w", pid, errGone)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("SIGHUP to process %d: %w; needs the same user or CAP_KILL", pid, err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("pidfd_send_signal: %w; needs Linux 5.1, and no seccomp filter against it", err)
	case err != nil:
		return fmt.Errorf("SIGHUP to process %d: %w", pid, err)
	}
	return nil
}

// writeFIFO writes the letter of a graceful reload into uWSGI's master FIFO
// (docs/MasterFIFO.rst), after a look that this master reads from it.
func writeFIFO(path string, pid int) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s: nobody reads from it; is it the master-fifo of uWSGI %d?", path, pid)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link: %w", path, errLinked)
	case err != nil:
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return fmt.Errorf("%s is no FIFO", path)
	}
	held, err := holds(pid, st)
	if err != nil {
		return fmt.Errorf("is %s open in uWSGI %d: %w; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH", path, pid, err)
	}
	if !held {
		return fmt.Errorf("%s is not open in uWSGI %d: it is another's master-fifo", path, pid)
	}
	if _, err := unix.Write(fd, []byte("r")); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// holds reports whether a process has the file open.
func holds(pid int, file unix.Stat_t) (bool, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Stat(dir+"/"+e.Name(), &st); err == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			return true, nil
		}
	}
	return false, nil
}

// touch sets the times of uWSGI's touch-reload file to now.
func touch(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s is a symbolic link: %w", path, errLinked)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is no regular file: %w", path, errLinked)
	}
	now := unix.NsecToTimeval(time.Now().UnixNano())
	if err := unix.Futimes(fd, []unix.Timeval{now, now}); err != nil {
		return fmt.Errorf("%w; needs the owner of the file or CAP_FOWNER", &os.PathError{Op: "touch", Path: path, Err: err})
	}
	return nil
}

// await returns the number of new workers when the old ones have ended.
func (h hand) await(ctx context.Context, master int, p facts.Process, old *oldWorkers, before []facts.Process) (int, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	stop := context.AfterFunc(ctx, func() { unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer func() {
		if !stop() { // nobody may write to it any more when it is closed
			unix.Poll([]unix.PollFd{{Fd: int32(wake), Events: unix.POLLIN}}, -1)
		}
	}()
	// A pidfd becomes readable when its process ends.
	wait := func(left []int, timeout int) ([]int, error) {
		ended, err := readable(append([]int{wake, master}, left...), timeout)
		switch {
		case err != nil:
			return nil, err
		case ended[0]:
			return nil, context.Cause(ctx)
		case ended[1]:
			return nil, errors.New("the master has ended; its log says why")
		}
		var still []int
		for i, fd := range left {
			if !ended[2+i] {
				still = append(still, fd)
			}
		}
		return still, nil
	}
	for left := old.fds; len(left) > 0; {
		still, err := wait(left, -1)
		if err != nil {
			return 0, fmt.Errorf("%w; %s of %d still at work (worker-reload-mercy gives them 60 seconds)", err, plural(len(left), "old worker"), len(old.fds))
		}
		left = still
	}
	var settled time.Time
	for {
		now, err := h.children(p.PID)
		if err != nil {
			return 0, err
		}
		fresh, ended := count(before, now)
		if fresh > 0 && settled.IsZero() {
			settled = time.Now().Add(settle)
		}
		if fresh >= ended || fresh > 0 && time.Now().After(settled) {
			return min(fresh, len(old.fds)), nil // a router is new too
		}
		// Nothing tells of a new child.
		if _, err := wait(nil, look); err != nil {
			return 0, fmt.Errorf("%w; %d processes have ended, and there are %d new ones", err, ended, fresh)
		}
	}
}

// count tells how many processes are new since before, and how many have gone.
func count(before, now []facts.Process) (fresh, ended int) {
	for _, p := range now {
		if !slices.ContainsFunc(before, p.Same) {
			fresh++
		}
	}
	return fresh, len(before) + fresh - len(now)
}

// readable waits until one of the descriptors is readable, at most timeout
// milliseconds, -1 for ever, and tells which are.
func readable(fds []int, timeout int) ([]bool, error) {
	set := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		set[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	_, err := unix.Poll(set, timeout)
	if err != nil && !errors.Is(err, unix.EINTR) { // the runtime signals its threads
		return nil, os.NewSyscallError("poll", err)
	}
	yes := make([]bool, len(fds))
	for i := range set {
		yes[i] = set[i].Revents != 0
	}
	return yes, nil
}

// listens makes sure that the socket listens after the reload: the same, or
// where that is gone (uWSGI's http mode binds a new one behind its router)
// another one of the master.
func listens(s facts.Socket) error {
	space, err := spaceOf(s)
	if err != nil {
		return err
	}
	defer space.close()
	all, _, err := space.dump()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(l listener) bool { return l.inode == s.ID.Inode }) {
		return nil
	}
	held, err := sockets("/proc/" + strconv.Itoa(s.Master.PID))
	if err != nil {
		return fmt.Errorf("socket %d of %s is gone, and a new one could not be looked for: %w; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH", s.ID.Inode, s.Name(), err)
	}
	if !slices.ContainsFunc(all, func(l listener) bool { _, ok := held[l.inode]; return ok && l.family == s.Family }) {
		return fmt.Errorf("socket %d of %s is gone, and uWSGI listens on no other", s.ID.Inode, s.Name())
	}
	return nil
}

func (h hand) start(ctx context.Context, a remediate.Start) remediate.Outcome {
	if h.units == nil {
		return failed(-1, errNoUnits)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.Timeout, fmt.Errorf("not done after %s", a.Timeout))
	defer cancel()
	if err := h.units.Start(ctx, a.Unit); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return failed(-1, fmt.Errorf("start %s: %w", a.Unit, err))
	}
	return remediate.Outcome{Result: remediate.Applied, Now: -1}
}
