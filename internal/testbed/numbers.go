package testbed

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const somaxconnFile = "/proc/sys/net/core/somaxconn"

// Somaxconn is net.core.somaxconn of this network namespace.
func Somaxconn() (int, error) {
	text, err := os.ReadFile(somaxconnFile)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// SetSomaxconn sets net.core.somaxconn of this network namespace.
func SetSomaxconn(n int) error {
	return os.WriteFile(somaxconnFile, []byte(strconv.Itoa(n)), 0o644)
}

// ListenOverflows is how often, since this network namespace began, a
// connection found a full accept queue (TcpExt ListenOverflows, netstat(8)).
func ListenOverflows() (int, error) {
	text, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		values := strings.Fields(line)
		if len(values) == 0 || values[0] != "TcpExt:" {
			continue
		}
		if names == nil { // the first line of the pair
			names = values
			continue
		}
		for i, name := range names {
			if name == "ListenOverflows" && i < len(values) {
				return strconv.Atoi(values[i])
			}
		}
	}
	return 0, fmt.Errorf("no ListenOverflows in /proc/net/netstat")
}

// Queue is the accept queue of the one socket that listens on addr: how many
// connections wait, and the limit in force, as ss(8) prints them (Recv-Q and
// Send-Q of a listening socket). addr is "127.0.0.1:80", "[::1]:80", a path, or
// "@name" for an abstract UNIX socket.
func Queue(addr string) (length, limit int, err error) {
	all, err := listeners(addr, "n")
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d sockets listen on %s, want one", len(all), addr)
	}
	if err != nil {
		return 0, 0, err
	}
	return all[0].Length, all[0].Limit, nil
}

// Listener is a socket that listens. PIDs are those who hold it, in ascending
// order, as far as this process may see.
type Listener struct {
	Length, Limit int
	PIDs          []int
}

var holder = regexp.MustCompile(`\bpid=(\d+)`)

// Listeners are the sockets that listen on addr: several with SO_REUSEPORT, all
// where addr is "".
func Listeners(addr string) ([]Listener, error) { return listeners(addr, "np") }

func listeners(addr, flags string) (found []Listener, err error) {
	args, column := []string{"-H", "-lt" + flags}, 3
	if isUNIX(addr) {
		args, column = []string{"-H", "-lx" + flags}, 4 // Netid stands first
	}
	out, err := exec.Command("ss", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("ss %v: %w", args, err)
	}
	shown := strings.ReplaceAll(addr, "\x00", "@") // as ss shows a NUL in an abstract name
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) <= column || addr != "" && f[column] != shown {
			continue
		}
		var l Listener
		if _, err := fmt.Sscan(f[column-2]+" "+f[column-1], &l.Length, &l.Limit); err != nil {
			return nil, fmt.Errorf("ss: %q: %w", line, err)
		}
		for _, m := range holder.FindAllStringSubmatch(line, -1) {
			pid, _ := strconv.Atoi(m[1])
			l.PIDs = append(l.PIDs, pid)
		}
		slices.Sort(l.PIDs)
		found = append(found, l)
	}
	return found, nil
}

func isUNIX(addr string) bool { return strings.HasPrefix(addr, "/") || strings.HasPrefix(addr, "@") }
