package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// settings makes a configuration for a daemon that only follows files.
func (b *bench) settings(name, probe string, globs ...string) (path string, err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	files, err := json.Marshal(globs)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "qwatch.toml")
	text := fmt.Sprintf("dry_run = true\nstate_dir = %q\nsocket = %q\n[[source]]\nfiles = %s\n[probe]\ninterval = %q\n[metrics]\nlisten = \"\"\n",
		dir, filepath.Join(dir, "socket"), files, probe)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// runQwatch starts the daemon and waits until it follows.
func (b *bench) runQwatch(config string) (*daemon, error) {
	os.Remove(filepath.Join(filepath.Dir(config), "positions.json"))
	log, err := os.Create(config + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d, err := b.start(nil, log, b.qwatch, "run", "-c", config)
	if err != nil {
		return nil, err
	}
	return d, until(b.ctx, time.Minute, "qwatch to be ready", func() bool {
		text, _ := os.ReadFile(log.Name())
		return bytes.Contains(text, []byte("is ready"))
	})
}

// hits asks the daemon how many records it has found.
func (b *bench) hits(config string) (hits int) {
	out, err := exec.CommandContext(b.ctx, b.qwatch, "status", "--json", "-c", config).Output()
	if err != nil {
		return 0
	}
	var status struct{ Sources []struct{ Hits int } }
	if json.Unmarshal(out, &status) != nil {
		return 0
	}
	for _, s := range status.Sources {
		hits += s.Hits
	}
	return hits
}

const mtailProgram = `counter hits by socket
/\*\*\* uWSGI listen queue of socket "(?P<socket>[^"]+)" \(fd: \d+\) full !!! \(\d+\/\d+\) \*\*\*/ {
  hits[$socket]++
}
`

// follow has each tool follow a file that grows by 100,000 lines a second.
func (b *bench) follow() error {
	log := filepath.Join(b.dir, "live.log")
	config, err := b.settings("follow", "0s", log)
	if err != nil {
		return err
	}
	program := filepath.Join(b.dir, "queue.mtail")
	if err := os.WriteFile(program, []byte(mtailProgram), 0o644); err != nil {
		return err
	}
	contenders := []contender{
		{"qwatch", func() (cost, error) {
			return b.followed(log, func() (follower, error) { return b.qwatchFollows(config) })
		}},
		{"tail", func() (cost, error) { return b.followed(log, func() (follower, error) { return b.tailFollows(log) }) }},
		{"mtail", func() (cost, error) {
			return b.followed(log, func() (follower, error) { return b.mtailFollows(program, log) })
		}},
	}
	got, err := b.interleave(b.runs, contenders...)
	if err != nil {
		return err
	}
	work := fmt.Sprintf("following 100,000 lines/s for %.0f s", b.span.Seconds())
	q, t, m := got["qwatch"], got["tail"], got["mtail"]
	result := fmt.Sprintf("%.2f s CPU", q.cpu.Seconds())
	b.ratio(work, result, fmt.Sprintf("tail -F | grep --line-buffered -F: %.2f s CPU", t.cpu.Seconds()), q.cpu, t.cpu, 1.0)
	b.ratio(work, result, fmt.Sprintf("mtail: %.2f s CPU", m.cpu.Seconds()), q.cpu, m.cpu, 0.1)
	return nil
}

// follower is a tool that follows the log.
type follower struct {
	processes []*daemon
	// found is how many records it has found so far.
	found func() int
}

// followed runs a tool while the log grows, and until it has found all.
func (b *bench) followed(log string, begin func() (follower, error)) (c cost, err error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return c, err
	}
	defer os.Remove(log)
	defer f.Close()
	tool, err := begin()
	defer func() {
		for _, p := range tool.processes {
			p.stop()
			c = c.add(p.ProcessState)
		}
	}()
	if err != nil {
		return c, err
	}
	records, err := pace(b.ctx, f, b.span, newLines(3).record())
	if err != nil {
		return c, err
	}
	return c, until(b.ctx, 2*time.Minute, fmt.Sprintf("%d records to be found", records), func() bool {
		return tool.found() >= records
	})
}

func (b *bench) qwatchFollows(config string) (follower, error) {
	d, err := b.runQwatch(config)
	return follower{[]*daemon{d}, func() int { return b.hits(config) }}, err
}

func (b *bench) tailFollows(log string) (follower, error) {
	var tool follower
	found, err := os.Create(filepath.Join(b.dir, "found"))
	if err != nil {
		return tool, err
	}
	defer found.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return tool, err
	}
	defer r.Close()
	defer w.Close()
	tail, err := b.start(nil, w, "tail", "-n", "+1", "-F", log)
	if err != nil {
		return tool, err
	}
	tool.processes = append(tool.processes, tail)
	grep, err := b.start(r, found, "grep", "--line-buffered", "-F", literal)
	if err != nil {
		return tool, err
	}
	tool.processes = append(tool.processes, grep)
	tool.found = func() int {
		text, _ := os.ReadFile(found.Name())
		return countLines(text)
	}
	return tool, until(b.ctx, 10*time.Second, "tail to follow", func() bool { return opened(tail.Process.Pid, log) })
}

func (b *bench) mtailFollows(program, log string) (follower, error) {
	socket := filepath.Join(b.dir, "mtail.socket")
	os.Remove(socket)
	d, err := b.start(nil, nil, "mtail", "-progs", program, "-logs", log, "-unix_socket", socket, "-logtostderr")
	if err != nil {
		return follower{}, err
	}
	tool := follower{[]*daemon{d}, func() int { return b.mtailHits(socket) }}
	return tool, until(b.ctx, 10*time.Second, "mtail to follow", func() bool { return opened(d.Process.Pid, log) })
}

// mtailHits asks mtail how many records it has counted.
func (b *bench) mtailHits(socket string) (hits int) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	answer, err := client.Get("http://mtail/metrics")
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "hits{") {
			fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &hits)
		}
	}
	return hits
}

// opened says whether a process has a file open.
func opened(pid int, path string) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if target, _ := os.Readlink(link); target == path {
			return true
		}
	}
	return false
}
