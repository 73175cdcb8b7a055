package host

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
	"qwatch/systemd"
)

// fakeSystemd has one .socket unit, and counts the questions.
type fakeSystemd struct {
	asked atomic.Int32
	hang  chan struct{} // nil where it answers
}

func (f *fakeSystemd) SocketUnits(_ context.Context, service string) ([]systemd.SocketUnit, error) {
	f.asked.Add(1)
	if f.hang != nil {
		<-f.hang
	}
	app := systemd.SocketUnit{Unit: "app.socket", Listen: []string{"/run/other.sock", "/run/app.sock"}, Backlog: 128}
	switch service {
	case "bad.service":
		return nil, systemd.ErrNoManager
	case "half.service": // the second of its units could not be asked for
		return []systemd.SocketUnit{app}, systemd.ErrNoManager
	}
	return []systemd.SocketUnit{app}, nil
}

func (f *fakeSystemd) Service(context.Context, string) (systemd.Service, error) {
	if f.hang != nil {
		<-f.hang
	}
	return systemd.Service{Active: "failed", Sub: "failed", Result: "exit-code", Status: 1, Args: []string{"/usr/bin/uwsgi_python3", "--listen", "300"}, Environ: []string{"A=b"}}, nil
}

func (f *fakeSystemd) Main(context.Context, string) (int, bool, error) {
	if f.hang != nil {
		<-f.hang
	}
	return 7, true, nil
}

func unitFact(unit string) facts.Fact[string] {
	if unit == "" {
		return facts.Absent[string]()
	}
	return facts.Known(unit)
}

func TestSocketUnits(t *testing.T) {
	f := &fakeSystemd{}
	o := options
	o.SocketUnits, o.AssumeRights = f, true
	h := newHost(t, o)
	socket := func(inode uint64, unit string, family facts.Family, address string) facts.Socket {
		return facts.Socket{ID: facts.SocketID{Inode: inode}, Family: family, Address: address, Master: facts.Process{PID: 1 << 22, Unit: unitFact(unit)}}
	}
	// The kernel shows that systemd has not made it, which counts where systemd
	// itself does not answer.
	made := func(s facts.Socket) facts.Socket {
		s.Unit = facts.Absent[facts.SocketUnit]()
		return s
	}
	for _, asked := range []int32{7, 10} { // the second time the failed ones only
		snapshot := facts.Snapshot{Sockets: []facts.Socket{
			socket(1, "app.service", facts.Unix, "/run/app.sock"),
			socket(2, "app.service", facts.TCP, "127.0.0.1:9191"),
			socket(3, "", facts.Unix, "/run/app.sock"),
			socket(4, "bad.service", facts.Unix, "@bad"),
			socket(5, "half.service", facts.Unix, "/run/app.sock"),
			socket(6, "half.service", facts.Unix, "/run/second.sock"),
			made(socket(7, "bad.service", facts.TCP, "127.0.0.1:9192")),
			made(socket(8, "app.service", facts.Unix, "/run/app.sock")),
		}}
		h.fill(t.Context(), &o, &budget{time.Minute}, &snapshot)
		var got []string
		for _, s := range snapshot.Sockets {
			got = append(got, fmt.Sprintf("%s %d %s", s.Unit.Value.Name, s.Unit.Value.Backlog.Value, s.Unit.Unseen()))
		}
		bad := systemd.ErrNoManager.Error()
		if diff := cmp.Diff([]string{"app.socket 128 ", " 0 ", " 0 ", " 0 " + bad, "app.socket 128 ", " 0 " + bad, " 0 ", "app.socket 128 "}, got); diff != "" {
			t.Errorf("units (-want +got):\n%s", diff)
		}
		if want := "the .socket unit of @bad: " + bad; !strings.Contains(strings.Join(snapshot.Unseen, "\n"), want) {
			t.Errorf("unseen %q, want %q", snapshot.Unseen, want)
		}
		if f.asked.Load() != asked {
			t.Errorf("asked %d times, want %d", f.asked.Load(), asked)
		}
	}
}

// silentServers accept and say nothing.
func silentServers(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for i := range n {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// A host on which nothing answers is looked at within the patience that there
// is, and then without any; what it does not say is unknown, with the reason.
func TestSilentHost(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5185"})
	hang := make(chan struct{})
	defer close(hang)
	o := options
	o.Stats = silentServers(t, 8)
	o.SocketUnits = &fakeSystemd{hang: hang}
	o.Services = &fakeSystemd{hang: hang}
	o.Patience = 50 * time.Millisecond
	h := newHost(t, o)
	var read atomic.Int32
	h.lookups.config.Ask = func(_ context.Context, p uwsgi.Process) (facts.Config, error) {
		if p.PID == u.Pid { // those of other tests beside this one would take all slots
			read.Add(1)
			<-hang
		}
		return facts.Config{}, nil
	}
	h.lookups.rights.Ask = func(_ context.Context, step facts.Step) (struct{}, error) {
		if step == facts.StepRelisten {
			<-hang
		}
		return struct{}{}, nil
	}
	look := func(address string) (facts.Socket, []string, time.Duration) {
		t.Helper()
		s := facts.Snapshot{Sockets: socketsOf(observe(t, h), u.Pid)}
		if len(s.Sockets) != 1 || s.Sockets[0].Limit != 100 || len(s.Sockets[0].Workers) != 2 {
			t.Fatalf("sockets: %+v", s.Sockets)
		}
		s.Sockets[0].Master.Unit = facts.Known("app.service") // there is no systemd here
		s.Sockets[0].Unit = facts.Fact[facts.SocketUnit]{}    // as if the kernel did not tell who has made it
		began := time.Now()
		h.fill(t.Context(), &o, &budget{o.Patience}, &s)
		took := time.Since(began)
		if !strings.HasPrefix(s.WhyNot(facts.StepRelisten), "it is not known whether qwatch may: it has not answered for ") {
			t.Errorf("cannot %v", s.Cannot)
		}
		return s.Sockets[0], s.Unseen, took
	}
	// Observe has waited for the configuration and the stats servers, and
	// Fill now waits for systemd, which it asks for the first time.
	for i, most := range []time.Duration{o.Patience, 0, 0} {
		socket, unseen, took := look(u.Address)
		// A busy machine is late; it is not a deadline late.
		if took > most+statsDeadline/2 {
			t.Errorf("look %d took %s", i, took)
		}
		for what, got := range map[string]string{"listen": socket.Config.Listen.Unseen(), "reload": socket.Config.ReloadEnds.Unseen(), "unit": socket.Unit.Unseen()} {
			if !strings.HasPrefix(got, "it has not answered for ") {
				t.Errorf("look %d: %s %q", i, what, got)
			}
		}
		if socket.Stats != nil {
			t.Errorf("look %d: stats %v", i, socket.Stats)
		}
		if diff := cmp.Diff([]string{u.LogFile}, socket.Logs); diff != "" {
			t.Errorf("look %d: what does answer is missing: %s", i, diff)
		}
		said := strings.Join(unseen, "\n")
		for _, address := range o.Stats {
			if want := "stats server " + address + ": it has not answered for "; !strings.Contains(said, want) {
				t.Errorf("look %d: unseen %q, want %q", i, said, want)
			}
		}
		if want := fmt.Sprintf("the configuration of uWSGI %d: it has not answered for ", u.Pid); !strings.Contains(said, want) {
			t.Errorf("look %d: unseen %q, want %q", i, said, want)
		}
	}
	if n := read.Load(); n != 1 {
		t.Errorf("the configuration was asked for %d times while the first read hangs", n)
	}
	began := time.Now()
	observe(t, h)
	if took := time.Since(began); took > statsDeadline {
		t.Errorf("a whole look took %s", took)
	}

	// Nobody else waits for the look either.
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Configure(o)
	if got := h.Refused(t.Context(), "app.service"); !strings.HasPrefix(got.Unseen(), "how app.service starts: it has not answered for ") {
		t.Errorf("refused: %v", got)
	}
}

func TestRefused(t *testing.T) {
	o := options
	h := newHost(t, o)
	if got := h.Refused(t.Context(), "app.service"); got.Unseen() != "how app.service starts: no systemd runs here" {
		t.Errorf("without systemd: %v", got)
	}
	o.Services = &fakeSystemd{}
	h.Configure(o)
	if got := h.Refused(t.Context(), "app.service"); got != facts.Known(facts.Setting{Listen: 300, At: "command line"}) {
		t.Errorf("got %v", got)
	}
	o.Services = owned{"app.service": {Active: "inactive", Sub: "dead", Result: "success", Args: []string{"/usr/bin/uwsgi", "--listen", "300"}}}
	h.Configure(o)
	if f := h.Refused(t.Context(), "app.service"); f.Unseen() != "how app.service starts: it is inactive (dead), and only what has failed is started" {
		t.Errorf("of one that was stopped: %s", f)
	}
}

// The last answer of a stats server stays, with its time, for the master that
// gave it.
func TestStatsStay(t *testing.T) {
	testbed.Needs(t, "namespace", "uwsgi")
	path := filepath.Join(t.TempDir(), "stats.sock")
	u := testbed.Run(t, testbed.Options{Address: "127.0.0.1:5186", Args: []string{"--stats", path}})
	o := options
	o.Stats = []string{path}
	h := newHost(t, o)
	first := socketsOf(observe(t, h), u.Pid)[0]
	if first.Stats == nil || first.Stats.Workers != 2 || first.Stats.At.IsZero() {
		t.Fatalf("stats: %+v", first.Stats)
	}
	hang := make(chan struct{})
	defer close(hang)
	h.lookups.stats.Ask = func(context.Context, string) (facts.Stats, error) {
		<-hang
		return facts.Stats{}, os.ErrDeadlineExceeded
	}
	h.lookups.stats.Good = 0
	o.Patience = 0
	h.Configure(o)
	snapshot := observe(t, h)
	for _, s := range socketsOf(snapshot, u.Pid) {
		if s.Stats == nil || s.Stats.At != first.Stats.At {
			t.Errorf("later: %+v, want those of %s", s.Stats, first.Stats.At)
		}
	}
	want := fmt.Sprintf("stats server %s has not answered since %s", path, first.Stats.At.UTC().Format(time.RFC3339))
	if got := strings.Join(snapshot.Unseen, "\n"); !strings.Contains(got, want) {
		t.Errorf("unseen %q, want %q", got, want)
	}
	// Another master has the address now.
	snapshot.Unseen = nil
	for i := range snapshot.Sockets {
		snapshot.Sockets[i].Master.Start++
		snapshot.Sockets[i].Stats = nil
	}
	h.lookups.fillStats(&snapshot, o.Stats)
	for _, s := range snapshot.Sockets {
		if s.Stats != nil {
			t.Errorf("%s has the numbers of its predecessor: %+v", s.Address, s.Stats)
		}
	}
}
