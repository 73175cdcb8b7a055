// Package facts is what is known of a host at one moment, as plain values: the
// accept queues of uWSGI, who holds them and what limits them, and what the
// kernel showed of a queue over some time. It is what looking at the host and
// deciding about it share; nothing here touches the host.
package facts

import (
	"cmp"
	"fmt"
	"time"

	"qwatch/internal/text"
)

// SocketID names one listening socket for as long as it lives.
type SocketID struct {
	// NetNS is the inode of the network namespace (stat of
	// /proc/PID/ns/net).
	NetNS uint64
	// Inode is the socket's inode, as sock_diag and /proc/PID/fd give it.
	Inode uint64
}

// Process names one process; a recycled pid has another Start.
type Process struct {
	PID   int
	Start uint64 // clock ticks from boot to the start, /proc/PID/stat field 22
	Comm  string
	UID   Fact[int] // the effective one
	// Unit is the systemd unit in whose cgroup the process runs, and Container
	// the container (its name or shortened id), "" where there is none or the
	// cgroup is unknown.
	Unit      Fact[string]
	Container string
}

// String names the process for people: "uwsgi 1234 (app.service)".
func (p Process) String() string {
	s := fmt.Sprintf("%s %d", text.Line(p.Comm), p.PID)
	switch {
	case p.Container != "":
		return s + " (" + text.Line(p.Container) + ")"
	case p.Unit.Value != "":
		return s + " (" + p.Unit.Value + ")"
	}
	return s
}

// Same reports whether p and q are one process.
func (p Process) Same(q Process) bool { return p.PID == q.PID && p.Start == q.Start }

// Worker is a child of a uWSGI master.
type Worker struct {
	Process
	State byte   // R S D T t Z X, /proc/PID/stat field 3
	Ticks uint64 // CPU time used, user and system, in clock ticks
	// Switches counts how often its threads gave up or lost the CPU
	// (/proc/PID/task/TID/status): as long as it stays, none of them has run.
	// 0 where that is not known.
	Switches uint64
	Waits    Waits
	// Late says that Waits and Switches are not known, since its threads could
	// not be looked at in time.
	Late bool
}

// Waits says what all threads of a process wait for without a time limit;
// "" for anything else, or where it is not known.
type Waits string

// What a worker can wait for that says something of its queue.
const (
	WaitsOnLock       Waits = "lock"        // a lock (futex(2), FUTEX_WAIT)
	WaitsOnSharedLock Waits = "shared lock" // a lock that uWSGI shares between its workers, as its thunder lock (FUTEX_LOCK_PI)
)

// Family is the address family of a listening socket.
type Family string

// The families that sock_diag is asked for.
const (
	TCP  Family = "tcp"
	TCP6 Family = "tcp6"
	Unix Family = "unix"
)

// Socket is a listening socket of a uWSGI as the kernel shows it.
type Socket struct {
	ID      SocketID
	Family  Family
	Address string // as uWSGI writes it: 127.0.0.1:5000, [::1]:80, /run/app.sock, @app

	// First is when this qwatch has seen the socket first. Its inode does not tell
	// its age: each CPU takes numbers from a batch of its own (get_next_ino,
	// fs/inode.c).
	First time.Time

	// Length is the number of connections in the accept queue (idiag_rqueue),
	// Limit the most that the kernel lets in (idiag_wqueue,
	// sk_max_ack_backlog). The queue is full when Length > Limit.
	Length, Limit int

	// Master is the uWSGI master that holds the socket, FD its descriptor
	// there, Workers the master's children.
	Master  Process
	FD      int
	Workers []Worker
	// Untrusted says why qwatch does not act on the master: absent where it may
	// (Standing.Untrusted).
	Untrusted Fact[string]
	// Logs are the regular files that the master has open for writing: where
	// its records can come from.
	Logs []string
	// Sight is by what it can be seen whether the app is loaded after a reload,
	// unknown where by nothing.
	Sight Fact[Sight]

	// Paused says why the master does not run, though it could: its cgroup is
	// frozen, or it is stopped; absent where neither is so.
	Paused Fact[string]

	// Refused is what the socket has refused since it was made.
	Refused Refused

	// SoleListener is true where no other socket of the namespace accepts TCP
	// connections, of whatever program.
	SoleListener bool
	// OtherNetNS is true where the socket lives in another network namespace
	// than qwatch.
	OtherNetNS bool
	// Somaxconn is net.core.somaxconn of the socket's namespace.
	Somaxconn Fact[int]
	// Config is what uWSGI's configuration says.
	Config Config
	// Deploy is what a reload of the master would bring. It is looked at only where
	// the policy has reloads.
	Deploy Deploy
	// Ways is what is known of how the master can be asked for a reload.
	Ways Ways
	// Stats is what the master's stats server says, nil where none is
	// configured or it does not answer.
	Stats *Stats
	// Unit is the systemd .socket unit that holds the socket.
	Unit Fact[SocketUnit]
}

// Config is what a uWSGI is configured to, as its next start would read it.
type Config struct {
	// Listen is the listen backlog, absent never: there is a default.
	Listen Fact[Setting]
	// Own is the listen of the master itself where an emperor binds its socket,
	// whose Listen is above; nil where both are one.
	Own *Fact[Setting]
	// ReloadEnds is why a reload would end this uWSGI ("exit-on-reload
	// (/etc/uwsgi/app.ini:3)", "it runs without a master process"), absent
	// where the whole configuration was read and nothing in it says so.
	ReloadEnds Fact[string]
	// Orders is what it says of reloads.
	Orders Orders
	// File is the first file of it, "" where there is none or none is known.
	File string
	// Utilities are the addresses at which it listens for something else than
	// requests, as far as its configuration was read; nil where there is none.
	Utilities *[]Utility
	// Mode is how it reloads.
	Mode Fact[Mode]
}

// Unread says what of the configuration could not be seen, "" where all was.
func (c Config) Unread() string {
	return cmp.Or(c.Listen.Unseen(), c.reloads().Unseen(), c.ReloadEnds.Unseen())
}

// reloads is the listen that a reload of the master meets: uWSGI compares its own
// with somaxconn, whoever has bound the socket (core/socket.c).
func (c Config) reloads() Fact[Setting] {
	if c.Own != nil {
		return *c.Own
	}
	return c.Listen
}

// Setting is a listen backlog and where it stands ("/etc/uwsgi/app.ini:12",
// "command line", "default").
type Setting struct {
	Listen int
	At     string
}

// SocketUnit is a systemd .socket unit, and its Backlog=.
type SocketUnit struct {
	Name    string
	Backlog Fact[int]
}

// Full reports whether the kernel refuses the next connection: it drops when
// the length is over the limit (sk_acceptq_is_full, include/net/sock.h).
func (s Socket) Full() bool { return s.Length > s.Limit }

// Foreign reports whether the socket is a container's, also one with the host's
// network, or lives in another network namespace: policy.containers decides then.
func (s Socket) Foreign() bool { return s.OtherNetNS || s.Master.Container != "" }

// AfterRestart is the listen backlog with which the socket is made the next time:
// by systemd if a .socket unit holds it, else by uWSGI. The kernel cuts it to
// somaxconn.
func (s Socket) AfterRestart() Fact[int] {
	if s.Unit.Unseen() != "" {
		return Unknown[int](s.Unit.Unseen())
	}
	if u, ok := s.Unit.Get(); ok {
		return u.Backlog
	}
	if l, ok := s.Config.Listen.Get(); ok {
		return Known(l.Listen)
	}
	return Unknown[int](s.Config.Listen.Unseen())
}

// Name is how the socket is called in plans, logs and the audit trail: its
// address, and where it lives if that is not qwatch's own namespace. A UNIX
// path may hold any bytes, JSON cannot: a name that the audit trail changes
// would never be found in it again.
func (s Socket) Name() string {
	address := text.Line(s.Address)
	switch {
	case !s.OtherNetNS:
		return address
	case s.Master.Container != "":
		return address + " in " + text.Line(s.Master.Container)
	default:
		return fmt.Sprintf("%s in netns:%d", address, s.ID.NetNS)
	}
}

// Key is the identity under which hits are grouped: the uWSGI master and the
// socket's address. It survives a graceful reload (the master keeps its pid
// over exec) and ends with the master.
func (s Socket) Key() string {
	return fmt.Sprintf("%d.%d/%s", s.Master.PID, s.Master.Start, s.Address)
}

// Snapshot is what the host shows at one moment, as plain values.
type Snapshot struct {
	At time.Time
	// Booted is when the kernel started (proc_stat(5), btime).
	Booted time.Time
	// Sockets are the listening sockets that a uWSGI master holds.
	Sockets []Socket
	// Sysctl holds the live values of net.core.somaxconn and its companions
	// in qwatch's own network namespace; a key that this kernel or namespace
	// lacks is missing.
	Sysctl map[string]int
	// File holds what the configured sysctl.d file sets now; nil if there is
	// no such file.
	File map[string]int
	// Boot tells for each key what a reboot would set; absent where no file
	// sets it.
	Boot map[string]Fact[BootValue]
	// DefaultSomaxconn is what this kernel begins with, before any file: 4096,
	// and 128 before Linux 5.4.
	DefaultSomaxconn Fact[int]
	// WinningFile is a path for qwatch's own file that would win at boot.
	WinningFile string
	// Cannot is, for each step that is not possible here, why: "sysctl",
	// "sysctl_file", "relisten", "reload", "journal"; absent for one that is
	// possible. The rights are tried, not guessed.
	Cannot map[Step]Fact[string]
	// Ownerless are the listening sockets of which it could not be seen whether
	// a uWSGI holds them, and HiddenOwners says why there may be some, "" where
	// every uWSGI could be looked into.
	Ownerless    []Address
	HiddenOwners string
	// Unseen says what could not be looked at, each with its reason.
	Unseen []string
}

// BootValue is the setting of one key that wins at boot (sysctl.d(5)).
type BootValue struct {
	Value int
	File  string
	Line  int
}

// WhyNot says why a step is not possible here, "" where it is. One that was not
// tried, or whose trial has not ended, counts as not possible.
func (f Snapshot) WhyNot(step Step) string {
	switch cannot := f.Cannot[step]; {
	case cannot.IsAbsent():
		return ""
	case cannot.Unseen() != "":
		return "it is not known whether qwatch may: " + cannot.Unseen()
	default:
		return cannot.Value
	}
}

// SomaxconnAtBoot is what a reboot would set net.core.somaxconn to; it has no
// File where that is the kernel's default.
func (f Snapshot) SomaxconnAtBoot() Fact[BootValue] {
	boot := f.Boot["net.core.somaxconn"]
	if !boot.IsAbsent() {
		return boot
	}
	if v, ok := f.DefaultSomaxconn.Get(); ok {
		return Known(BootValue{Value: v})
	}
	return Unknown[BootValue]("no file sets it, and this kernel's default is not known")
}

// Steps are all of them, in the order of a remediation.
func Steps() []Step {
	return []Step{StepSysctl, StepSysctlFile, StepRelisten, StepReload, StepJournal}
}

// AllSteps are Steps and those that no doctor reports.
func AllSteps() []Step { return append(Steps(), StepContainers) }

// Allowed is Snapshot.Cannot where every step is possible.
func Allowed() map[Step]Fact[string] {
	all := make(map[Step]Fact[string])
	for _, step := range Steps() {
		all[step] = Absent[string]()
	}
	return all
}

// Step names what may be possible or not on a host.
type Step string

// The steps, as `doctor` reports them.
const (
	StepSysctl     Step = "sysctl"
	StepSysctlFile Step = "sysctl_file"
	StepRelisten   Step = "relisten"
	StepReload     Step = "reload"
	StepJournal    Step = "journal"
	// StepContainers is entering other network namespaces. No doctor reports
	// it: what it cannot see there stands in Snapshot.Unseen.
	StepContainers Step = "containers"
)

// ClockTick is the unit of /proc/PID/stat: USER_HZ is 100 wherever uWSGI and Go
// run.
const ClockTick = 10 * time.Millisecond

// Born is when a process was started.
func (f Snapshot) Born(p Process) time.Time {
	return f.Booted.Add(time.Duration(p.Start) * ClockTick)
}

// Find returns the socket with this identity.
func (f Snapshot) Find(id SocketID) (Socket, bool) {
	for i := range f.Sockets { // a Socket is large to copy
		if f.Sockets[i].ID == id {
			return f.Sockets[i], true
		}
	}
	return Socket{}, false
}

// Sample is the state of one accept queue at one moment.
type Sample struct {
	ID     SocketID
	At     time.Time
	Length int
	Limit  int
	// Drops is sk_drops, what the socket refused since it was made, for whatever
	// reason; Overflowed makes sense of it. A UNIX socket has none.
	Drops      Fact[uint32]
	Neighbours Neighbours
	// Overflows and Opens are TcpExt ListenOverflows and Tcp PassiveOpens of
	// the whole namespace, OtherDrops is Refusals.Other, read just after the
	// sockets, and Before what was read just before them. Uncounted says why the
	// first three could not be read, "" where they were.
	Uncounted  string
	Overflows  uint64
	Opens      uint64
	OtherDrops uint64
	Before     Refusals
}

// Full is Socket.Full at the time of the sample.
func (r Sample) Full() bool { return r.Length > r.Limit }
