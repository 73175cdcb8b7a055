package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"qwatch/internal/host"
	"qwatch/internal/testbed"
)

const (
	// established is the number of TCP sockets in the state ESTABLISHED. Both
	// ends of a connection are on this host, so there are half as many
	// connections.
	established = 100_000
	// connectionsEach is how many a process holds, whose limit of open files
	// may be 20,000.
	connectionsEach = 5000
	sleeping        = 2000 // processes
	appAddress      = "127.0.0.1:5000"
)

// host runs the part that needs namespaces in a process of its own.
func (b *bench) host(short bool) error {
	if !have("uwsgi") && !have("uwsgi-core") {
		fmt.Fprintln(os.Stderr, "bench: no uWSGI here: what the probe costs is left out")
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"-inside", "-qwatch", b.qwatch}
	if short {
		args = append(args, "-short")
	}
	cmd := exec.CommandContext(b.ctx, self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var rows []row
	if err := json.Unmarshal(out, &rows); err != nil {
		return err
	}
	b.rows = append(b.rows, rows...)
	return nil
}

// hostInside measures what looking at a busy host costs.
func (b *bench) hostInside() error {
	uwsgi, err := testbed.StartUWSGI(b.ctx, testbed.Options{Address: appAddress, Workers: 4})
	if err != nil {
		return err
	}
	defer uwsgi.Stop()
	crowds := [][]string{
		{"sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 300 & i=$((i+1)); done; echo; wait", sleeping)},
	}
	// Not in this process: to start another one copies the table of files,
	// and ss would have to pay for that.
	for range established / 2 / connectionsEach {
		crowds = append(crowds, []string{"/proc/self/exe", "-connect", strconv.Itoa(connectionsEach)})
	}
	for _, crowd := range crowds {
		stop, err := b.crowd(crowd)
		if err != nil {
			return err
		}
		defer stop()
	}
	if err := b.looks(); err != nil {
		return err
	}
	if err := b.probe(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(b.rows)
}

// looks compares single looks with what people type.
func (b *bench) looks() error {
	h, err := host.New(host.Options{Processes: []string{"uwsgi", "uwsgi-core"}, Sysctls: []string{"net.core.somaxconn"}})
	if err != nil {
		return err
	}
	defer h.Close()
	look := func(name string, look func() (int, error)) contender {
		return contender{name, func() (cost, error) {
			before, began := selfCPU(), time.Now()
			n, err := look()
			if err == nil && n == 0 {
				err = errors.New("it did not see uWSGI's socket")
			}
			return cost{wall: time.Since(began), cpu: selfCPU() - before}, err
		}}
	}
	contenders := []contender{
		look("sample", func() (int, error) { r, err := h.Sample(b.ctx); return len(r), err }),
		look("observe", func() (int, error) { f, err := h.Observe(b.ctx); return len(f.Sockets), err }),
		b.command("ltn", "ss", "-ltn"),
		b.command("tan", "ss", "-tan"),
	}
	help, err := exec.CommandContext(b.ctx, b.qwatch, "help").Output()
	if err != nil {
		return err
	}
	doctor := bytes.Contains(help, []byte("\n  doctor "))
	if doctor {
		contenders = append(contenders, contender{"doctor", func() (cost, error) {
			c, err := b.costOf(nil, b.qwatch, "doctor", "--json")
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 3 { // it found a problem
				return c.add(exit.ProcessState), nil
			}
			return c, err
		}})
	}
	got, err := b.interleave(2*b.runs+1, contenders...)
	if err != nil {
		return err
	}
	compare := func(name, work string) {
		c := got[name]
		result := fmt.Sprintf("%.2f ms (%.2f ms CPU)", ms(c.wall), ms(c.cpu))
		for _, ss := range []string{"ltn", "tan"} {
			o := got[ss]
			b.ratio(work, result, fmt.Sprintf("ss -%s: %.2f ms (%.2f ms CPU)", ss, ms(o.wall), ms(o.cpu)), c.cpu, o.cpu, 0)
		}
	}
	compare("sample", "one look of the probe")
	compare("observe", "one look at everything")
	if doctor {
		compare("doctor", "qwatch doctor")
	}
	return nil
}

// probe measures the daemon with nothing to do but its probe.
func (b *bench) probe() error {
	log := filepath.Join(b.dir, "app.log")
	if err := os.WriteFile(log, nil, 0o644); err != nil {
		return err
	}
	config, err := b.settings("probe", "1s", log)
	if err != nil {
		return err
	}
	d, err := b.runQwatch(config)
	defer d.stop()
	if err != nil {
		return err
	}
	if err := b.wait(3 * time.Second); err != nil {
		return err
	}
	before, err := usageOf(d.Process.Pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.wait(b.probing); err != nil {
		return err
	}
	after, err := usageOf(d.Process.Pid)
	if err != nil {
		return err
	}
	share := 100 * (after.cpu - before.cpu).Seconds() / time.Since(began).Seconds()
	b.add(row{
		Work:   fmt.Sprintf("probe at 1 s for %.0f s, %d connections, %d processes", b.probing.Seconds(), established, sleeping),
		Result: fmt.Sprintf("%.2f %% of a core", share), Bar: "≤ 0.3 %", Met: met(share <= 0.3),
	})
	return nil
}

// connect makes TCP connections from this process to itself and keeps them
// until it is killed.
func connect(n int) error {
	server, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(server, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(server, 128); err != nil {
		return err
	}
	address, err := unix.Getsockname(server)
	if err != nil {
		return err
	}
	for range n {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(client, address); err != nil {
			return err
		}
		if _, _, err := unix.Accept4(server, unix.SOCK_CLOEXEC); err != nil {
			return err
		}
	}
	fmt.Println("connected")
	return unix.Pause()
}

// crowd starts a command in a process group of its own and waits until it has
// printed something.
func (b *bench) crowd(command []string) (stop func(), err error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		cmd.Wait()
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return stop, nil
}

// selfCPU is what this process has used so far.
func selfCPU() time.Duration {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(unix.TimevalToNsec(r.Utime) + unix.TimevalToNsec(r.Stime))
}
