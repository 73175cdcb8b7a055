package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/procfs"

	"qwatch/internal/testbed"
)

// idling measures two daemons that have nothing to do, side by side.
func (b *bench) idling() {
	sleepers := []struct {
		work  string
		files int
		bar   uint64 // for its memory, in bytes
	}{{"idle, 1 file", 1, 15 << 20}, {"idle, 1,000 files", 1000, 30 << 20}}
	var daemons []*daemon
	for _, s := range sleepers {
		dir := filepath.Join(b.dir, fmt.Sprintf("logs-%d", s.files))
		check(os.Mkdir(dir, 0o755))
		for i := range s.files {
			check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("app%04d.log", i)), []byte("*** Starting uWSGI ***\n"), 0o644))
		}
		d, _ := b.run(fmt.Sprintf("idle-%d", s.files), "0s", filepath.Join(dir, "*.log"))
		defer d.stop()
		daemons = append(daemons, d)
	}
	b.wait(5 * time.Second) // the first positions are written, and the start's garbage is collected
	used := b.used(b.idle, daemons...)
	for i, s := range sleepers {
		status := must(must(procfs.NewProc(daemons[i].Process.Pid)).NewStatus())
		b.memory(s.work+": memory", fmt.Sprintf("%.1f MiB (at most %.1f)", mib(status.VmRSS), mib(status.VmHWM)), status.VmHWM, s.bar)
		b.add(row{Work: fmt.Sprintf("%s: CPU in %.0f s", s.work, b.idle.Seconds()),
			Result: fmt.Sprintf("%d ticks (%.3f ms)", used[i].ticks, ms(used[i].cpu)), Bar: "0 ticks", Met: met(used[i].ticks == 0)})
	}
}

const (
	// established is the number of TCP sockets in the state ESTABLISHED. Both
	// ends of a connection are on this host, so there are half as many
	// connections.
	established = 100_000
	// connectionsEach is how many a process holds, whose limit of open files
	// may be 20,000.
	connectionsEach = 5000
	sleeping        = 2000 // processes
)

// host runs the part that needs namespaces in a process of its own.
func (b *bench) host() {
	tests := filepath.Join(b.dir, "host.test")
	b.output("go", "test", "-c", "-o", tests, "./internal/host")
	var rows []row
	out := b.output("/proc/self/exe", "-inside", tests, "-qwatch", b.qwatch, fmt.Sprintf("-short=%v", b.sizes == brief))
	check(json.Unmarshal([]byte(out), &rows))
	b.rows = append(b.rows, rows...)
}

// hostInside measures what looking at a busy host costs.
func (b *bench) hostInside(tests string) {
	crowd := fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 300 & i=$((i+1)); done; echo ready; wait", sleeping)
	defer b.start("sleepers", said, "sh", "-c", crowd).stop()
	for i := range established / 2 / connectionsEach {
		// Not in this process: to start another one copies the table of files,
		// and ss would have to pay for that.
		defer b.start(fmt.Sprintf("connections-%d", i), said, "/proc/self/exe", "-connect", strconv.Itoa(connectionsEach)).stop()
	}
	b.glances(tests)
	b.probe()
	check(json.NewEncoder(os.Stdout).Encode(b.rows))
}

// glances compares single samples and observations with what people type, by
// their CPU time.
func (b *bench) glances(tests string) {
	single := map[string][]cost{} // each of these starts a uWSGI of its own
	for _, r := range b.benchmarks(tests, "-test.run", "^$", "-test.bench", "Sample|Observe", "-test.count", strconv.Itoa(b.runs)) {
		single[r.name] = append(single[r.name], cost{time.Duration(r.figures["ns/op"]), time.Duration(r.figures["cpu-ns/op"])})
	}
	uwsgi := must(testbed.StartUWSGI(b.ctx, testbed.Options{Address: "127.0.0.1:5000", Workers: 4}))
	defer uwsgi.Stop()
	typed := []command{{line: "ss -ltn", sink: "null"}, {line: "ss -tan", sink: "null"}}
	costs := b.hyperfine(2*b.runs+1, append(typed, command{line: b.qwatch + " doctor --json", sink: "null"})...)
	took := func(c cost) string { return fmt.Sprintf("%.2f ms (%.2f ms CPU)", ms(c.wall), ms(c.cpu)) }
	compare := func(work string, c cost) {
		for i, ss := range typed {
			b.ratio(work, took(c), ss.line+": "+took(costs[i]), c.cpu, costs[i].cpu, 0)
		}
	}
	compare("one sample of the probe", median(single["Sample"]))
	compare("one observation of the host", median(single["Observe"]))
	compare("qwatch doctor", costs[2])
}

// probe measures the daemon with nothing to do but its probe.
func (b *bench) probe() {
	uwsgi := must(testbed.StartUWSGI(b.ctx, testbed.Options{Address: "127.0.0.1:5000", Workers: 4}))
	defer uwsgi.Stop()
	d, _ := b.run("probe", "1s", filepath.Join(b.dir, "app.log"))
	defer d.stop()
	b.wait(3 * time.Second)
	share := 100 * b.used(b.probing, d)[0].cpu.Seconds() / b.probing.Seconds()
	b.add(row{
		Work:   fmt.Sprintf("probe at 1 s for %.0f s, %d connections, %d processes", b.probing.Seconds(), established, sleeping),
		Result: fmt.Sprintf("%.2f %% of a core", share), Bar: "≤ 0.3 %", Met: met(share <= 0.3),
	})
}

// connect makes TCP connections from this process to itself and keeps them
// until the run is ended.
func (b *bench) connect(n int) {
	// Keep-alive probes would be work for the kernel.
	listen, dial := net.ListenConfig{KeepAlive: -1}, net.Dialer{KeepAlive: -1}
	server := must(listen.Listen(b.ctx, "tcp", "127.0.0.1:0"))
	var held []net.Conn
	for range n {
		held = append(held, must(dial.DialContext(b.ctx, "tcp", server.Addr().String())), must(server.Accept()))
	}
	fmt.Println("ready")
	<-b.ctx.Done()
	runtime.KeepAlive(held)
}
