package diagnose

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// target is where the built-in policy aims from this limit.
func target(limit int) int {
	target := 1024
	for target < 2*limit && target < 8192 {
		target *= 2
	}
	return target
}

var update = flag.Bool("update", false, "write testdata anew")

// input is that of a TCP socket that was watched for so long at a constant
// length, of workers that have run since boot and answer busily.
func input(over time.Duration, length, limit int, change ...func(*Input)) Input {
	s := facts.Socket{
		ID: facts.SocketID{NetNS: 1, Inode: 77}, Family: facts.TCP, Address: "127.0.0.1:5000",
		Length: length, Limit: limit, Somaxconn: facts.Known(4096), SoleListener: true,
		Master:    facts.Process{PID: 10, Start: 100, Comm: "uwsgi", Unit: facts.Known("app.service")},
		Config:    facts.Config{Listen: facts.Known(facts.Setting{Listen: limit, At: "/etc/uwsgi/app.ini:12"}), ReloadEnds: facts.Absent[string]()},
		Unit:      facts.Absent[facts.SocketUnit](),
		Untrusted: facts.Absent[string](),
	}
	for i := range 4 {
		s.Workers = append(s.Workers, facts.Worker{Process: facts.Process{PID: 11 + i, Start: 200, Comm: "uwsgi"}, State: 'S', Ticks: 5000, Switches: 900})
	}
	g := Input{
		Now: Moment{At: now, Booted: now.Add(-time.Hour), Socket: s},
		Bounds: Bounds{MaxBacklog: 8192, MaxWait: 10 * time.Second, Target: target(limit),
			SysctlFile: "/etc/sysctl.d/90-qwatch.conf"},
	}
	for at := now.Add(-over); !at.After(now); at = at.Add(time.Second) {
		g.Samples = append(g.Samples, facts.Sample{ID: s.ID, At: at, Length: length, Limit: limit, Opens: 1000, Overflows: 50})
	}
	for _, f := range change {
		f(&g)
	}
	return g
}

// accepting makes the workers take so many connections a second, and others
// be turned away.
func accepting(taken, refused float64) func(*Input) {
	return func(g *Input) {
		for i := range g.Samples {
			since := g.Samples[i].At.Sub(g.Samples[0].At).Seconds()
			g.Samples[i].Opens += uint64(since * taken)
			g.Samples[i].Overflows += uint64(since * refused)
		}
	}
}

// earlier adds a look that long before, since which each worker used this
// share of a CPU.
func earlier(ago time.Duration, share float64) func(*Input) {
	return func(g *Input) {
		before := g.Now
		before.At = g.Now.At.Add(-ago)
		before.Socket.Workers = nil
		for _, w := range g.Now.Socket.Workers {
			w.Ticks -= uint64(share * float64(ago/clockTick))
			if share > 0 {
				w.Switches -= 10
			}
			before.Socket.Workers = append(before.Socket.Workers, w)
		}
		g.Earlier = append(g.Earlier, before)
	}
}

// socket changes the socket.
func socket(f func(s *facts.Socket)) func(*Input) { return func(g *Input) { f(&g.Now.Socket) } }

// each changes all workers.
func each(f func(w *facts.Worker)) func(*Input) {
	return socket(func(s *facts.Socket) {
		for i := range s.Workers {
			f(&s.Workers[i])
		}
	})
}

// born gives the workers an age.
func born(ago time.Duration) func(*Input) {
	return each(func(w *facts.Worker) { w.Start = uint64((time.Hour - ago) / clockTick) })
}

func marked(kinds ...matcher.MarkKind) func(*Input) {
	return func(g *Input) {
		for _, k := range kinds {
			g.Marks = append(g.Marks, matcher.Mark{Kind: k, At: now.Add(-5 * time.Second)})
		}
	}
}

func counted(requests uint64, response time.Duration) func(*Input) {
	return func(g *Input) {
		g.Earlier[0].Socket.Stats = &facts.Stats{At: g.Earlier[0].At, Requests: 100, Workers: 4, Busy: 4}
		g.Now.Socket.Stats = &facts.Stats{At: g.Now.At, Requests: 100 + requests, Workers: 4, Busy: 4, Response: response}
	}
}

func container(s *facts.Socket) {
	s.OtherNetNS, s.Master.Container, s.Master.Unit = true, "web-1", facts.Absent[string]()
}

// complaints are what people with a full listen queue reported, as far as a
// host shows it, and the diagnosis that each of them would have got is in
// testdata/diagnose.txt.
var complaints = []struct {
	name string
	in   Input
}{
	{"Stack Overflow 12340047: backlog limited to 100, at 99 % of the capacity", input(20*time.Second, 101, 100,
		socket(func(s *facts.Socket) { s.Config.Listen.Value.At = "default" }), accepting(20, 1), earlier(10*time.Second, 0.97))},
	{"--listen 2048, yet (129/128)", input(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) {
			s.Config.Listen.Value.Listen, s.Config.Listen.Value.At, s.Somaxconn = 2048, "command line", facts.Known(128)
		}))},
	{"unbit/uwsgi#378: the next start will be refused", input(3*time.Second, 0, 1024,
		socket(func(s *facts.Socket) { s.Somaxconn = facts.Known(128) }), marked(matcher.MarkNoStart), func(g *Input) { g.Marks[0].Limit = 128 })},
	{"alerta/docker-alerta#341, redimp/otterwiki#342, docker/for-linux#1068, OpenShift: somaxconn of the container", input(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) { s.Config.Listen.Value.Listen, s.Somaxconn = 128, facts.Known(128) }), socket(container))},
	{"unbit/uwsgi#2235: workers respawn together", input(20*time.Second, 129, 128, born(4*time.Second), accepting(30, 0))},
	{"unbit/uwsgi#1647: UNIX socket, stuck workers", input(20*time.Second, 101, 100,
		socket(func(s *facts.Socket) { s.Family, s.Address = facts.Unix, "/run/app.sock" }), earlier(20*time.Second, 0))},
	{"getsentry/self-hosted#1573: slow requests", input(30*time.Second, 101, 100,
		socket(func(s *facts.Socket) {
			s.Config.Listen.Value.Listen, s.Config.Listen.Value.At = 100, "/etc/sentry/uwsgi.yml:3"
		}),
		func(g *Input) { g.Now.Socket.SoleListener = false }, earlier(30*time.Second, 0.05), counted(20, 6*time.Second))},
	{"getsentry/self-hosted#3404: raised as far as it may be, and still full", input(3*time.Second, 8193, 8192,
		socket(func(s *facts.Socket) { s.Config.Listen.Value.Listen, s.Somaxconn = 500, facts.Known(8192) }))},
	{"datopian/giftless#184: 1024 helped for a while", input(60*time.Second, 1025, 1024,
		socket(func(s *facts.Socket) {
			s.Config.Listen.Value.Listen, s.Config.Listen.Value.At = 100, "/app/uwsgi.json:4"
		}), accepting(8, 4), marked(matcher.MarkHarakiri))},
	{"unbit/uwsgi#2444: workers asleep", input(16*time.Second, 129, 128, earlier(16*time.Second, 0))},
	{"unbit/uwsgi#1369: full right after a reload", input(9*time.Second, 101, 100, born(8*time.Second), marked(matcher.MarkReloaded),
		func(g *Input) {
			g.Samples[0].Length, g.Samples[1].Length = 0, 0
			g.Samples[0].Opens, g.Samples[1].Opens = 899, 899
		})},
	{"unbit/uwsgi#2461: thunder lock dead since a worker was killed", input(5*time.Second, 101, 100,
		each(func(w *facts.Worker) { w.Waits = facts.WaitsOnSharedLock }), earlier(3*time.Second, 0), marked(matcher.MarkDied, matcher.MarkDeadlock))},
	{"unbit/uwsgi#1038: chain reload and thunder lock", input(5*time.Second, 101, 100,
		each(func(w *facts.Worker) { w.Waits = facts.WaitsOnSharedLock }), earlier(3*time.Second, 0))},
	{"kobotoolbox/kobocat#834: Python deadlock", input(5*time.Second, 101, 100,
		each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0))},
	{"unbit/uwsgi#1685: never drained", input(20*time.Second, 101, 100, each(func(w *facts.Worker) { w.Switches = 0 }), earlier(4*time.Second, 0))},
	{"unbit/uwsgi#2406: (50125680/64) for ever", input(6*time.Second, 0, 64, func(g *Input) { g.Garbage = true })},
	{"PennyDreadful#5798: slow start", input(6*time.Second, 101, 100, socket(func(s *facts.Socket) {
		s.Workers, s.Master.Start = nil, uint64((time.Hour-8*time.Second)/clockTick)
	}))},
	{"unbit/uwsgi#1822: listen is ignored", input(3*time.Second, 101, 100, socket(func(s *facts.Socket) { s.Config.Listen.Value.Listen = 1024 }))},
	{"unbit/uwsgi#1804: bursts under a second", input(3*time.Second, 90, 100,
		socket(func(s *facts.Socket) { s.Config.Listen.Value.At = "default" }), accepting(200, 3))},
	{"betagouv/mrs#1207: stepwise", input(20*time.Second, 1025, 1024,
		socket(func(s *facts.Socket) {
			s.Config.Listen.Value.Listen, s.Config.Listen.Value.At = 128, "/etc/uwsgi/app.xml:4"
		}), accepting(300, 0))},
	{"the same behind a proxy on one host, without a stats server", input(20*time.Second, 1025, 1024,
		accepting(300, 0), earlier(10*time.Second, 0.7), func(g *Input) { g.Now.Socket.SoleListener = false })},
	{"cnblogs 11238862: replies slowed by a firewall", input(30*time.Second, 101, 100, accepting(2, 0.5), earlier(10*time.Second, 0.01))},
	{"systemd#4629: Backlog= of the socket unit", input(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) {
			s.Unit, s.Config.Listen.Value.Listen = facts.Known(facts.SocketUnit{Name: "app.socket", Backlog: facts.Known(128)}), 1024
		}))},
	{"systemd PR#28018: Backlog= cut by somaxconn", input(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) {
			s.Unit, s.Config.Listen.Value.Listen, s.Somaxconn = facts.Known(facts.SocketUnit{Name: "app.socket", Backlog: facts.Known(4096)}), 1024, facts.Known(128)
		}))},
	{"Backlog=128, and the socket is raised", input(3*time.Second, 1025, 1024,
		socket(func(s *facts.Socket) {
			s.Unit, s.Config.Listen = facts.Known(facts.SocketUnit{Name: "app.socket", Backlog: facts.Known(128)}), facts.Unknown[facts.Setting]("permission denied")
		}))},
	{"Backlog= is enough, but not that of the socket that is open", input(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) {
			s.Unit, s.Config.Listen = facts.Known(facts.SocketUnit{Name: "app.socket", Backlog: facts.Known(2048)}), facts.Unknown[facts.Setting]("permission denied")
		}))},
	{"Backlog= is not known", input(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) {
			s.Unit, s.Config.Listen.Value.Listen = facts.Known(facts.SocketUnit{Name: "app.socket"}), 1024
		}))},
	{"systemd does not answer", input(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) { s.Unit = facts.Unknown[facts.SocketUnit]("systemd has not answered for 1s") }))},
	{"a YAML user whose file sets no listen", input(20*time.Second, 101, 100, accepting(2, 0), earlier(10*time.Second, 0.01),
		socket(func(s *facts.Socket) {
			s.Config.Listen.Value.Listen, s.Config.Listen.Value.At, s.Config.File, s.SoleListener = 100, "default", "/etc/uwsgi/app.yaml", false
		}))},
}

func (d Diagnosis) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, binds %s, ceiling %v, accepts %.1f/s, wait %s, target at most %d\n",
		d.Kind, d.Binds, d.AtCeiling, d.AcceptRate, d.Wait.Round(100*time.Millisecond), d.MaxTarget)
	for _, r := range d.Reasons {
		fmt.Fprintf(&b, "  because %s\n", r)
	}
	for _, a := range d.Advice {
		fmt.Fprintf(&b, "  advice: %s\n", a)
	}
	return b.String()
}

func TestDiagnoseComplaints(t *testing.T) {
	const file = "testdata/diagnose.txt"
	var got strings.Builder
	for _, c := range complaints {
		fmt.Fprintf(&got, "%s\n%s\n", c.name, Diagnose(c.in).text())
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What forbids a raise must be proven, and what is not is a burst.
func TestDiagnoseNeedsProof(t *testing.T) {
	tests := []struct {
		name string
		in   Input
		want Kind
	}{
		{"3 s, nothing taken, workers asleep", input(3*time.Second, 129, 128, earlier(3*time.Second, 0)), Burst},
		{"14 s, nothing taken, workers asleep", input(14*time.Second, 129, 128, earlier(14*time.Second, 0)), Burst},
		{"15 s, nothing taken, workers asleep", input(15*time.Second, 129, 128, earlier(15*time.Second, 0)), Stall},
		{"15 s, one taken", input(15*time.Second, 129, 128, earlier(15*time.Second, 0.001), accepting(1.0/15, 0)), Overload},
		{"15 s, computing", input(15*time.Second, 129, 128, earlier(15*time.Second, 0.9)), Burst},
		{"15 s, one look", input(15*time.Second, 129, 128), Burst},
		{"locks, one look", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock })), Burst},
		{"locks, 1.9 s", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(1900*time.Millisecond, 0)), Burst},
		{"locks, 2 s", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(2*time.Second, 0)), Stall},
		{"locks, and yet something is taken", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0), accepting(1, 0)), Burst},
		{"locks, and yet requests are answered", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0), counted(1, 0)), Burst},
		{"locks that were given back between", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0.005)), Burst},
		{"one worker does not wait for a lock", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnSharedLock }),
			socket(func(s *facts.Socket) { s.Workers[3].Waits = "" }), earlier(3*time.Second, 0)), Burst},
		{"locks, and half full only", input(3*time.Second, 70, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0)), Idle},
		{"another master before", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0),
			func(g *Input) { g.Earlier[0].Socket.Master.PID++ }), Burst},
		{"locks, since the newer of two looks", input(9*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(8*time.Second, 0.5), earlier(3*time.Second, 0)), Stall},
		{"UNIX, requests take 10 s", input(30*time.Second, 129, 128, socket(func(s *facts.Socket) { s.Family = facts.Unix }), earlier(20*time.Second, 0.001), earlier(5*time.Second, 0)), Burst},
		{"UNIX, no worker has run for 15 s", input(30*time.Second, 129, 128, socket(func(s *facts.Socket) { s.Family = facts.Unix }), earlier(16*time.Second, 0), earlier(5*time.Second, 0)), Stall},
		{"UNIX, no request is answered", input(30*time.Second, 129, 128, socket(func(s *facts.Socket) { s.Family = facts.Unix }), earlier(20*time.Second, 0.001), counted(0, 0)), Stall},
		{"UNIX, the stats server is silent, and its last answer was kept", input(30*time.Second, 129, 128, socket(func(s *facts.Socket) { s.Family = facts.Unix }), earlier(20*time.Second, 0.001), counted(0, 0), func(g *Input) {
			kept := facts.Stats{At: now.Add(-25 * time.Second), Requests: 100, Workers: 4, Busy: 4}
			g.Earlier[0].Socket.Stats, g.Now.Socket.Stats = &kept, &kept
		}), Burst},
		{"disk", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'D' }), earlier(3*time.Second, 0)), Stall},
		{"disk, busy", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'D' }), earlier(3*time.Second, 0.1)), Burst},
		{"all stopped, half full", input(0, 70, 128, each(func(w *facts.Worker) { w.State = 'T' })), Stall},
		{"all stopped, empty", input(3*time.Second, 0, 128, each(func(w *facts.Worker) { w.State = 'T' })), Idle},
		{"one not stopped", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'T' }), socket(func(s *facts.Socket) { s.Workers[0].State = 'R' })), Burst},
		{"all dead", input(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'Z' }), earlier(3*time.Second, 0)), Stall},
		{"all dead just now", input(3*time.Second, 129, 128, earlier(3*time.Second, 0), each(func(w *facts.Worker) { w.State = 'Z' })), Respawn},
		{"deadlock-detector, nothing taken", input(3*time.Second, 129, 128, marked(matcher.MarkDeadlock)), Stall},
		{"deadlock-detector, recovered", input(3*time.Second, 129, 128, marked(matcher.MarkDeadlock), accepting(2, 0)), Burst},
		{"deadlock-detector, others may have taken", input(3*time.Second, 129, 128, marked(matcher.MarkDeadlock), accepting(2, 0), func(g *Input) { g.Now.Socket.SoleListener = false }), Burst},
		{"9 s of overload", input(9*time.Second, 129, 128, accepting(5, 1)), Burst},
		{"10 s of overload", input(10*time.Second, 129, 128, accepting(5, 1)), Overload},
		{"20 s of overload, once drained", input(20*time.Second, 129, 128, accepting(5, 1), func(g *Input) { g.Samples[15].Length = 20 }), Burst},
		{"20 s of overload, not alone", input(20*time.Second, 129, 128, accepting(5, 1), earlier(10*time.Second, 0.5), func(g *Input) { g.Now.Socket.SoleListener = false }), Overload},
		{"20 s, not alone, and workers asleep", input(20*time.Second, 129, 128, accepting(5, 1), earlier(10*time.Second, 0), func(g *Input) { g.Now.Socket.SoleListener = false }), Burst},
		{"20 s, not alone, one look", input(20*time.Second, 129, 128, accepting(5, 1), func(g *Input) { g.Now.Socket.SoleListener = false }), Burst},
		{"20 s of overload, the counter began anew", input(20*time.Second, 129, 128, accepting(5, 1), func(g *Input) { g.Samples[20].Opens = 3 }), Burst},
		{"young workers, full from the start on", input(9*time.Second, 129, 128, born(5*time.Second), accepting(9, 0)), Respawn},
		{"young workers, busy with a flood of their own", input(9*time.Second, 129, 128, born(5*time.Second), func(g *Input) {
			for i := range 6 { // the flood began 3 s ago
				g.Samples[i].Length, g.Samples[i].Opens = 0, 870
			}
		}), Burst},
		{"young workers, not watched from the start on", input(3*time.Second, 129, 128, born(5*time.Second)), Burst},
		{"workers of 10 s", input(20*time.Second, 129, 128, born(10*time.Second), accepting(9, 0)), Overload},
		{"young workers one after the other", input(20*time.Second, 129, 128, born(9*time.Second), accepting(9, 0), socket(func(s *facts.Socket) { s.Workers[0].Start += 600 })), Overload},
		{"harakiri made them young", input(20*time.Second, 129, 128, born(4*time.Second), accepting(9, 0), marked(matcher.MarkHarakiri)), Overload},
		{"cheaper mode added most", input(20*time.Second, 129, 128, born(4*time.Second), accepting(9, 0), socket(func(s *facts.Socket) { s.Workers[0].Start = 200 })), Overload},
		{"most of them died", input(20*time.Second, 129, 128, born(4*time.Second), accepting(9, 0), socket(func(s *facts.Socket) { s.Workers[0].Start = 200 }), marked(matcher.MarkDied)), Respawn},
		{"garbage, 4 looks", input(3*time.Second, 0, 64, func(g *Input) { g.Garbage = true }), Idle},
		{"garbage, and yet full", input(6*time.Second, 65, 64, func(g *Input) { g.Garbage = true }), Burst},
		{"nothing known", Input{}, Idle},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := Diagnose(test.in)
			if d.Kind != test.want {
				t.Errorf("want %s, got %s", test.want, d.text())
			}
		})
	}
}

// What looks like a stall has a few seconds to show whether it is one.
func TestDiagnoseDoubt(t *testing.T) {
	locked := each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock })
	tests := []struct {
		name string
		in   Input
		want bool
	}{
		{"locks, first look", input(time.Second, 129, 128, locked), true},
		{"locks, seen for 1.9 s", input(3*time.Second, 129, 128, locked, earlier(1900*time.Millisecond, 0)), true},
		{"locks, and none 3 s ago", input(3*time.Second, 129, 128, earlier(3*time.Second, 0), locked), true},
		{"locks, given back and taken", input(3*time.Second, 129, 128, locked, earlier(3*time.Second, 0.005)), false},
		{"locks, and yet something is taken", input(3*time.Second, 129, 128, locked, earlier(3*time.Second, 0), accepting(1, 0)), false},
		{"locks, full for long", input(6*time.Second, 129, 128, locked), false},
		{"locks, not full now", input(3*time.Second, 120, 128, locked), false},
		{"one worker does something else", input(time.Second, 129, 128, locked, socket(func(s *facts.Socket) { s.Workers[3].Waits = "" })), false},
		{"one worker was not read in time", input(time.Second, 129, 128, locked, socket(func(s *facts.Socket) { s.Workers[3].Waits, s.Workers[3].Late = "", true })), true},
		{"no worker was read in time", input(time.Second, 129, 128, each(func(w *facts.Worker) { w.Late = true })), true},
		{"no worker was read in time, full for long", input(6*time.Second, 129, 128, each(func(w *facts.Worker) { w.Late = true })), false},
		{"slow requests", input(time.Second, 129, 128), false},
		{"no workers", input(time.Second, 129, 128, socket(func(s *facts.Socket) { s.Workers = nil })), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if d := Diagnose(test.in); d.Doubt != "" != test.want {
				t.Errorf("doubt %q, want one: %v; %s", d.Doubt, test.want, d.text())
			}
		})
	}
}

// The bound on a raise grows with the accept rate, and with nothing else.
func TestDiagnoseMaxTarget(t *testing.T) {
	last := 0
	for _, taken := range []float64{0.1, 0.5, 1, 7, 20, 100, 5000} {
		d := Diagnose(input(20*time.Second, 129, 128, accepting(taken, 1)))
		if d.Kind != Overload || d.MaxTarget < last || d.MaxTarget < 1 {
			t.Errorf("%.1f/s: %s", taken, d.text())
		}
		last = d.MaxTarget
		if d := Diagnose(input(3*time.Second, 129, 128, accepting(taken, 1))); d.MaxTarget != 0 {
			t.Errorf("%.1f/s for 3 s: %s", taken, d.text())
		}
	}
	others := input(20*time.Second, 129, 128, accepting(5, 1), earlier(10*time.Second, 0.5), func(g *Input) { g.Now.Socket.SoleListener = false })
	if d := Diagnose(others); d.MaxTarget != 50 || d.AcceptRate != -1 {
		t.Errorf("not alone: %s", d.text())
	}
	unbound := input(20*time.Second, 129, 128, accepting(5, 1))
	unbound.Bounds.MaxWait = 0
	if d := Diagnose(unbound); d.MaxTarget != 0 {
		t.Errorf("without max_wait: %s", d.text())
	}
}

// Whatever the numbers, a diagnosis has its reason, and its rate is a number.
func FuzzDiagnose(f *testing.F) {
	f.Add(uint8(20), 129, 128, 100, 128, byte('S'), uint64(5), uint64(9), true)
	f.Add(uint8(3), 0, 64, 0, 0, byte('Z'), uint64(0), uint64(1<<63), false)
	f.Fuzz(func(t *testing.T, seconds uint8, length, limit, configured, somaxconn int, state byte, ticks, opens uint64, alone bool) {
		g := input(time.Duration(seconds)*time.Second, length, limit, each(func(w *facts.Worker) { w.State = state }), earlier(time.Duration(seconds)*time.Second, 0))
		g.Now.Socket.SoleListener = alone
		g.Now.Socket.Config.Listen.Value.Listen, g.Now.Socket.Somaxconn = configured, facts.Known(somaxconn)
		g.Now.Socket.Workers[0].Ticks = ticks
		g.Samples[len(g.Samples)-1].Opens = opens
		d := Diagnose(g)
		if len(d.Reasons) == 0 || d.Reasons[0] == "" || d.AcceptRate != -1 && !(d.AcceptRate >= 0) || d.Wait < 0 || d.MaxTarget < 0 {
			t.Errorf("%+v", d)
		}
	})
}
