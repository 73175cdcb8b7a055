package remediate

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

// signs are those of a TCP socket that was watched for so long at a constant
// length, of workers that have run since boot and answer busily.
func signs(over time.Duration, length, limit int, change ...func(*Signs)) Signs {
	s := facts.Socket{
		ID: facts.SocketID{NetNS: 1, Inode: 77}, Family: facts.TCP, Address: "127.0.0.1:5000",
		Length: length, Limit: limit, Somaxconn: 4096,
		Master:     facts.Process{PID: 10, Start: 100, Comm: "uwsgi", Unit: "app.service"},
		Configured: limit, ConfiguredAt: "/etc/uwsgi/app.ini:12",
	}
	for i := range 4 {
		s.Workers = append(s.Workers, facts.Worker{Process: facts.Process{PID: 11 + i, Start: 200, Comm: "uwsgi"}, State: 'S', Ticks: 5000, Switches: 900})
	}
	g := Signs{
		Now:   Look{At: now, Booted: now.Add(-time.Hour), Socket: s},
		Alone: true,
		Policy: Policy{Factor: 2, MinBacklog: 1024, MaxBacklog: 8192, MaxWait: 10 * time.Second,
			SysctlFile: "/etc/sysctl.d/90-qwatch.conf"},
	}
	for at := now.Add(-over); !at.After(now); at = at.Add(time.Second) {
		g.Readings = append(g.Readings, facts.Sample{ID: s.ID, At: at, Length: length, Limit: limit, Opens: 1000, Overflows: 50})
	}
	for _, f := range change {
		f(&g)
	}
	return g
}

// accepting makes the workers take so many connections a second, and others
// be turned away.
func accepting(taken, refused float64) func(*Signs) {
	return func(g *Signs) {
		for i := range g.Readings {
			since := g.Readings[i].At.Sub(g.Readings[0].At).Seconds()
			g.Readings[i].Opens += uint64(since * taken)
			g.Readings[i].Overflows += uint64(since * refused)
		}
	}
}

// earlier adds a look that long before, since which each worker used this
// share of a CPU.
func earlier(ago time.Duration, share float64) func(*Signs) {
	return func(g *Signs) {
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
		if g.Before.At.IsZero() {
			g.Before = before
		} else {
			g.Between = append(g.Between, before)
		}
	}
}

// socket changes the socket.
func socket(f func(s *facts.Socket)) func(*Signs) { return func(g *Signs) { f(&g.Now.Socket) } }

// each changes all workers.
func each(f func(w *facts.Worker)) func(*Signs) {
	return socket(func(s *facts.Socket) {
		for i := range s.Workers {
			f(&s.Workers[i])
		}
	})
}

// born gives the workers an age.
func born(ago time.Duration) func(*Signs) {
	return each(func(w *facts.Worker) { w.Start = uint64((time.Hour - ago) / clockTick) })
}

func marked(kinds ...matcher.MarkKind) func(*Signs) {
	return func(g *Signs) {
		for _, k := range kinds {
			g.Marks = append(g.Marks, matcher.Mark{Kind: k, At: now.Add(-5 * time.Second)})
		}
	}
}

func counted(requests uint64, response time.Duration) func(*Signs) {
	return func(g *Signs) {
		g.Before.Stats = &facts.Stats{Requests: 100, Workers: 4, Busy: 4}
		g.Now.Stats = &facts.Stats{Requests: 100 + requests, Workers: 4, Busy: 4, Response: response}
	}
}

func container(s *facts.Socket) {
	s.OtherNetNS, s.Master.Container, s.Master.Unit = true, "web-1", ""
}

// complaints are what people with a full listen queue reported, as far as a
// host shows it, and the diagnosis that each of them would have got is in
// testdata/diagnose.txt.
var complaints = []struct {
	name  string
	signs Signs
}{
	{"Stack Overflow 12340047: backlog limited to 100, at 99 % of the capacity", signs(20*time.Second, 101, 100,
		socket(func(s *facts.Socket) { s.ConfiguredAt = "default" }), accepting(20, 1), earlier(10*time.Second, 0.97))},
	{"--listen 2048, yet (129/128)", signs(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) { s.Configured, s.ConfiguredAt, s.Somaxconn = 2048, "command line", 128 }))},
	{"unbit/uwsgi#378: the next start will be refused", signs(3*time.Second, 0, 1024,
		socket(func(s *facts.Socket) { s.Somaxconn = 128 }), marked(matcher.MarkNoStart), func(g *Signs) { g.Marks[0].Limit = 128 })},
	{"alerta/docker-alerta#341, redimp/otterwiki#342, docker/for-linux#1068, OpenShift: somaxconn of the container", signs(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) { s.Configured, s.Somaxconn = 128, 128 }), socket(container))},
	{"unbit/uwsgi#2235: workers respawn together", signs(20*time.Second, 129, 128, born(4*time.Second), accepting(30, 0))},
	{"unbit/uwsgi#1647: UNIX socket, stuck workers", signs(20*time.Second, 101, 100,
		socket(func(s *facts.Socket) { s.Family, s.Address = facts.Unix, "/run/app.sock" }), earlier(20*time.Second, 0))},
	{"getsentry/self-hosted#1573: slow requests", signs(30*time.Second, 101, 100,
		socket(func(s *facts.Socket) { s.Configured, s.ConfiguredAt = 100, "/etc/sentry/uwsgi.yml:3" }),
		func(g *Signs) { g.Alone = false }, earlier(30*time.Second, 0.05), counted(20, 6*time.Second))},
	{"getsentry/self-hosted#3404: raised as far as it may be, and still full", signs(3*time.Second, 8193, 8192,
		socket(func(s *facts.Socket) { s.Configured, s.Somaxconn = 500, 8192 }))},
	{"datopian/giftless#184: 1024 helped for a while", signs(60*time.Second, 1025, 1024,
		socket(func(s *facts.Socket) { s.Configured, s.ConfiguredAt = 100, "/app/uwsgi.json:4" }), accepting(8, 4), marked(matcher.MarkHarakiri))},
	{"unbit/uwsgi#2444: workers asleep", signs(16*time.Second, 129, 128, earlier(16*time.Second, 0))},
	{"unbit/uwsgi#1369: full right after a reload", signs(9*time.Second, 101, 100, born(8*time.Second), marked(matcher.MarkReloaded),
		func(g *Signs) {
			g.Readings[0].Length, g.Readings[1].Length = 0, 0
			g.Readings[0].Opens, g.Readings[1].Opens = 899, 899
		})},
	{"unbit/uwsgi#2461: thunder lock dead since a worker was killed", signs(5*time.Second, 101, 100,
		each(func(w *facts.Worker) { w.Waits = facts.WaitsOnSharedLock }), earlier(3*time.Second, 0), marked(matcher.MarkDied, matcher.MarkDeadlock))},
	{"unbit/uwsgi#1038: chain reload and thunder lock", signs(5*time.Second, 101, 100,
		each(func(w *facts.Worker) { w.Waits = facts.WaitsOnSharedLock }), earlier(3*time.Second, 0))},
	{"kobotoolbox/kobocat#834: Python deadlock", signs(5*time.Second, 101, 100,
		each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0))},
	{"unbit/uwsgi#1685: never drained", signs(20*time.Second, 101, 100, each(func(w *facts.Worker) { w.Switches = 0 }), earlier(4*time.Second, 0))},
	{"unbit/uwsgi#2406: (50125680/64) for ever", signs(6*time.Second, 0, 64, func(g *Signs) { g.Garbage = true })},
	{"PennyDreadful#5798: slow start", signs(6*time.Second, 101, 100, socket(func(s *facts.Socket) {
		s.Workers, s.Master.Start = nil, uint64((time.Hour-8*time.Second)/clockTick)
	}))},
	{"unbit/uwsgi#1822: listen is ignored", signs(3*time.Second, 101, 100, socket(func(s *facts.Socket) { s.Configured = 1024 }))},
	{"unbit/uwsgi#1804: bursts under a second", signs(3*time.Second, 90, 100,
		socket(func(s *facts.Socket) { s.ConfiguredAt = "default" }), accepting(200, 3))},
	{"betagouv/mrs#1207: stepwise", signs(20*time.Second, 1025, 1024,
		socket(func(s *facts.Socket) { s.Configured, s.ConfiguredAt = 128, "/etc/uwsgi/app.xml:4" }), accepting(300, 0))},
	{"the same behind a proxy on one host, without a stats server", signs(20*time.Second, 1025, 1024,
		accepting(300, 0), earlier(10*time.Second, 0.7), func(g *Signs) { g.Alone = false })},
	{"cnblogs 11238862: replies slowed by a firewall", signs(30*time.Second, 101, 100, accepting(2, 0.5), earlier(10*time.Second, 0.01))},
	{"systemd#4629: Backlog= of the socket unit", signs(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) { s.SocketUnit, s.Configured = "app.socket", 1024 }))},
	{"systemd PR#28018: Backlog= cut by somaxconn", signs(3*time.Second, 129, 128,
		socket(func(s *facts.Socket) { s.SocketUnit, s.Configured, s.Somaxconn = "app.socket", 1024, 128 }))},
}

func (d Diagnosis) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, sure %v, binds %s, ceiling %v, accepts %.1f/s, wait %s, target at most %d\n",
		d.Kind, d.Sure, d.Binds, d.AtCeiling, d.AcceptRate, d.Wait.Round(100*time.Millisecond), d.MaxTarget)
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
		fmt.Fprintf(&got, "%s\n%s\n", c.name, Diagnose(c.signs).text())
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
		name  string
		signs Signs
		want  Kind
	}{
		{"3 s, nothing taken, workers asleep", signs(3*time.Second, 129, 128, earlier(3*time.Second, 0)), Burst},
		{"14 s, nothing taken, workers asleep", signs(14*time.Second, 129, 128, earlier(14*time.Second, 0)), Burst},
		{"15 s, nothing taken, workers asleep", signs(15*time.Second, 129, 128, earlier(15*time.Second, 0)), Stall},
		{"15 s, one taken", signs(15*time.Second, 129, 128, earlier(15*time.Second, 0.001), accepting(1.0/15, 0)), Overload},
		{"15 s, computing", signs(15*time.Second, 129, 128, earlier(15*time.Second, 0.9)), Burst},
		{"15 s, one look", signs(15*time.Second, 129, 128), Burst},
		{"locks, one look", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock })), Burst},
		{"locks, 1.9 s", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(1900*time.Millisecond, 0)), Burst},
		{"locks, 2 s", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(2*time.Second, 0)), Stall},
		{"locks, and yet something is taken", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0), accepting(1, 0)), Burst},
		{"locks, and yet requests are answered", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0), counted(1, 0)), Burst},
		{"locks that were given back between", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0.005)), Burst},
		{"one worker does not wait for a lock", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnSharedLock }),
			socket(func(s *facts.Socket) { s.Workers[3].Waits = "" }), earlier(3*time.Second, 0)), Burst},
		{"locks, and half full only", signs(3*time.Second, 70, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0)), Idle},
		{"another master before", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(3*time.Second, 0),
			func(g *Signs) { g.Before.Socket.Master.PID++ }), Burst},
		{"locks, since the newer of two looks", signs(9*time.Second, 129, 128, each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock }), earlier(8*time.Second, 0.5), earlier(3*time.Second, 0)), Stall},
		{"UNIX, requests take 10 s", signs(30*time.Second, 129, 128, socket(func(s *facts.Socket) { s.Family = facts.Unix }), earlier(20*time.Second, 0.001), earlier(5*time.Second, 0)), Burst},
		{"UNIX, no worker has run for 15 s", signs(30*time.Second, 129, 128, socket(func(s *facts.Socket) { s.Family = facts.Unix }), earlier(16*time.Second, 0), earlier(5*time.Second, 0)), Stall},
		{"UNIX, no request is answered", signs(30*time.Second, 129, 128, socket(func(s *facts.Socket) { s.Family = facts.Unix }), earlier(20*time.Second, 0.001), counted(0, 0)), Stall},
		{"disk", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'D' }), earlier(3*time.Second, 0)), Stall},
		{"disk, busy", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'D' }), earlier(3*time.Second, 0.1)), Burst},
		{"all stopped, half full", signs(0, 70, 128, each(func(w *facts.Worker) { w.State = 'T' })), Stall},
		{"all stopped, empty", signs(3*time.Second, 0, 128, each(func(w *facts.Worker) { w.State = 'T' })), Idle},
		{"one not stopped", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'T' }), socket(func(s *facts.Socket) { s.Workers[0].State = 'R' })), Burst},
		{"all dead", signs(3*time.Second, 129, 128, each(func(w *facts.Worker) { w.State = 'Z' }), earlier(3*time.Second, 0)), Stall},
		{"all dead just now", signs(3*time.Second, 129, 128, earlier(3*time.Second, 0), each(func(w *facts.Worker) { w.State = 'Z' })), Respawn},
		{"deadlock-detector, nothing taken", signs(3*time.Second, 129, 128, marked(matcher.MarkDeadlock)), Stall},
		{"deadlock-detector, recovered", signs(3*time.Second, 129, 128, marked(matcher.MarkDeadlock), accepting(2, 0)), Burst},
		{"deadlock-detector, others may have taken", signs(3*time.Second, 129, 128, marked(matcher.MarkDeadlock), accepting(2, 0), func(g *Signs) { g.Alone = false }), Burst},
		{"9 s of overload", signs(9*time.Second, 129, 128, accepting(5, 1)), Burst},
		{"10 s of overload", signs(10*time.Second, 129, 128, accepting(5, 1)), Overload},
		{"20 s of overload, once drained", signs(20*time.Second, 129, 128, accepting(5, 1), func(g *Signs) { g.Readings[15].Length = 20 }), Burst},
		{"20 s of overload, not alone", signs(20*time.Second, 129, 128, accepting(5, 1), earlier(10*time.Second, 0.5), func(g *Signs) { g.Alone = false }), Overload},
		{"20 s, not alone, and workers asleep", signs(20*time.Second, 129, 128, accepting(5, 1), earlier(10*time.Second, 0), func(g *Signs) { g.Alone = false }), Burst},
		{"20 s, not alone, one look", signs(20*time.Second, 129, 128, accepting(5, 1), func(g *Signs) { g.Alone = false }), Burst},
		{"20 s of overload, the counter began anew", signs(20*time.Second, 129, 128, accepting(5, 1), func(g *Signs) { g.Readings[20].Opens = 3 }), Burst},
		{"young workers, full from the start on", signs(9*time.Second, 129, 128, born(5*time.Second), accepting(9, 0)), Respawn},
		{"young workers, busy with a flood of their own", signs(9*time.Second, 129, 128, born(5*time.Second), func(g *Signs) {
			for i := range 6 { // the flood began 3 s ago
				g.Readings[i].Length, g.Readings[i].Opens = 0, 870
			}
		}), Burst},
		{"young workers, not watched from the start on", signs(3*time.Second, 129, 128, born(5*time.Second)), Burst},
		{"workers of 10 s", signs(20*time.Second, 129, 128, born(10*time.Second), accepting(9, 0)), Overload},
		{"young workers one after the other", signs(20*time.Second, 129, 128, born(9*time.Second), accepting(9, 0), socket(func(s *facts.Socket) { s.Workers[0].Start += 600 })), Overload},
		{"harakiri made them young", signs(20*time.Second, 129, 128, born(4*time.Second), accepting(9, 0), marked(matcher.MarkHarakiri)), Overload},
		{"cheaper mode added most", signs(20*time.Second, 129, 128, born(4*time.Second), accepting(9, 0), socket(func(s *facts.Socket) { s.Workers[0].Start = 200 })), Overload},
		{"most of them died", signs(20*time.Second, 129, 128, born(4*time.Second), accepting(9, 0), socket(func(s *facts.Socket) { s.Workers[0].Start = 200 }), marked(matcher.MarkDied)), Respawn},
		{"garbage, 4 looks", signs(3*time.Second, 0, 64, func(g *Signs) { g.Garbage = true }), Idle},
		{"garbage, and yet full", signs(6*time.Second, 65, 64, func(g *Signs) { g.Garbage = true }), Burst},
		{"nothing known", Signs{}, Idle},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := Diagnose(test.signs)
			if d.Kind != test.want {
				t.Errorf("want %s, got %s", test.want, d.text())
			}
			if forbids, why := d.forbids(); forbids != (d.Kind == Stall || d.Kind == Respawn || d.Kind == False) || forbids && why != d.Reasons[0] {
				t.Errorf("forbids %v: %q", forbids, why)
			}
		})
	}
}

// What looks like a stall has a few seconds to show whether it is one.
func TestDiagnoseDoubt(t *testing.T) {
	locked := each(func(w *facts.Worker) { w.Waits = facts.WaitsOnLock })
	tests := []struct {
		name  string
		signs Signs
		want  bool
	}{
		{"locks, first look", signs(time.Second, 129, 128, locked), true},
		{"locks, seen for 1.9 s", signs(3*time.Second, 129, 128, locked, earlier(1900*time.Millisecond, 0)), true},
		{"locks, and none 3 s ago", signs(3*time.Second, 129, 128, earlier(3*time.Second, 0), locked), true},
		{"locks, given back and taken", signs(3*time.Second, 129, 128, locked, earlier(3*time.Second, 0.005)), false},
		{"locks, and yet something is taken", signs(3*time.Second, 129, 128, locked, earlier(3*time.Second, 0), accepting(1, 0)), false},
		{"locks, full for long", signs(6*time.Second, 129, 128, locked), false},
		{"locks, not full now", signs(3*time.Second, 120, 128, locked), false},
		{"one worker does something else", signs(time.Second, 129, 128, locked, socket(func(s *facts.Socket) { s.Workers[3].Waits = "" })), false},
		{"slow requests", signs(time.Second, 129, 128), false},
		{"no workers", signs(time.Second, 129, 128, socket(func(s *facts.Socket) { s.Workers = nil })), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if d := Diagnose(test.signs); d.Doubt != "" != test.want {
				t.Errorf("doubt %q, want one: %v; %s", d.Doubt, test.want, d.text())
			}
		})
	}
}

// The bound on a raise grows with the accept rate, and with nothing else.
func TestDiagnoseMaxTarget(t *testing.T) {
	last := 0
	for _, taken := range []float64{0.1, 0.5, 1, 7, 20, 100, 5000} {
		d := Diagnose(signs(20*time.Second, 129, 128, accepting(taken, 1)))
		if d.Kind != Overload || d.MaxTarget < last || d.MaxTarget < 1 {
			t.Errorf("%.1f/s: %s", taken, d.text())
		}
		last = d.MaxTarget
		if d := Diagnose(signs(3*time.Second, 129, 128, accepting(taken, 1))); d.MaxTarget != 0 {
			t.Errorf("%.1f/s for 3 s: %s", taken, d.text())
		}
	}
	others := signs(20*time.Second, 129, 128, accepting(5, 1), earlier(10*time.Second, 0.5), func(g *Signs) { g.Alone = false })
	if d := Diagnose(others); d.MaxTarget != 50 || d.AcceptRate != -1 || d.Sure {
		t.Errorf("not alone: %s", d.text())
	}
	unbound := signs(20*time.Second, 129, 128, accepting(5, 1))
	unbound.Policy.MaxWait = 0
	if d := Diagnose(unbound); d.MaxTarget != 0 {
		t.Errorf("without max_wait: %s", d.text())
	}
}

// Whatever the numbers, a diagnosis has its reason, its rate is a number, and
// only what is proven forbids a raise.
func FuzzDiagnose(f *testing.F) {
	f.Add(uint8(20), 129, 128, 100, 128, byte('S'), uint64(5), uint64(9), true)
	f.Add(uint8(3), 0, 64, 0, 0, byte('Z'), uint64(0), uint64(1<<63), false)
	f.Fuzz(func(t *testing.T, seconds uint8, length, limit, configured, somaxconn int, state byte, ticks, opens uint64, alone bool) {
		g := signs(time.Duration(seconds)*time.Second, length, limit, each(func(w *facts.Worker) { w.State = state }), earlier(time.Duration(seconds)*time.Second, 0))
		g.Alone = alone
		g.Now.Socket.Configured, g.Now.Socket.Somaxconn = configured, somaxconn
		g.Now.Socket.Workers[0].Ticks = ticks
		g.Readings[len(g.Readings)-1].Opens = opens
		d := Diagnose(g)
		if len(d.Reasons) == 0 || d.Reasons[0] == "" || d.AcceptRate != -1 && !(d.AcceptRate >= 0) || d.Wait < 0 || d.MaxTarget < 0 {
			t.Errorf("%+v", d)
		}
		if forbids, _ := d.forbids(); forbids && !d.Sure {
			t.Errorf("a guess forbids a raise: %+v", d)
		}
	})
}
