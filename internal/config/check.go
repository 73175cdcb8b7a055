package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"

	"qwatch/remediate"
)

// absolute wants a clean absolute path.
func absolute(p string) *problem {
	switch {
	case !strings.HasPrefix(p, "/"):
		return &problem{quoted(p) + " is not an absolute path", "write the whole path, from /"}
	case strings.ContainsFunc(p, unicode.IsControl):
		return &problem{quoted(p) + " holds a control character", "write the path without it"}
	case filepath.Clean(p) != p:
		return &problem{quoted(p) + " is not a clean path", fmt.Sprintf("write %q", filepath.Clean(p))}
	}
	return nil
}

// socketPath wants what fits into sockaddr_un: unix(7), 108 bytes with the
// closing NUL.
func socketPath(p string) *problem {
	if len(p) > 107 {
		return &problem{fmt.Sprintf("%d bytes are too long for a UNIX socket's path", len(p)), "at most 107 bytes"}
	}
	return absolute(p)
}

// hostPort wants an address that a TCP client or server can use.
func hostPort(addr string) *problem {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return &problem{quoted(addr) + " is not host:port", `like "127.0.0.1:9918", or "[::1]:9918"`}
	}
	return nil
}

// orOff lets "" pass.
func orOff(check func(string) *problem) func(string) *problem {
	return func(s string) *problem {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

// reloadHow wants a way to reload: a method, and for some a path.
func reloadHow(s string) *problem {
	method, path, hasPath := strings.Cut(s, ":")
	switch remediate.Method(method) {
	case remediate.MethodFIFO, remediate.MethodTouch:
		if !hasPath {
			return &problem{quoted(s) + " lacks its path", fmt.Sprintf(`write "%s:/absolute/path"`, method)}
		}
		return absolute(path)
	case remediate.MethodAuto, remediate.MethodSignal, remediate.MethodSystemd, remediate.MethodChain:
		if hasPath {
			return &problem{fmt.Sprintf("%q takes no path", method), fmt.Sprintf("write %q", method)}
		}
		return nil
	}
	return &problem{quoted(s) + " is not a way to reload", "one of: auto, signal, systemd, chain, fifo:PATH, touch:PATH"}
}

// processName wants what can be a process's name.
func processName(s string) *problem {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r == '/' || unicode.IsControl(r) }) {
		return &problem{quoted(s) + " is not a process name", `the name alone, without a directory: "uwsgi"`}
	}
	return nil
}

// userName wants what can be a user's name or number (useradd(8)).
func userName(s string) *problem {
	if !userPattern.MatchString(s) {
		return &problem{quoted(s) + " is not a user", `a login name or a number: "alice", "1001"`}
	}
	return nil
}

var userPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?$`)

// systemd-sysctl passes over hidden files and those without .conf.
var sysctlFileName = regexp.MustCompile(`^[A-Za-z0-9_@-][A-Za-z0-9_@.-]*\.conf$`)

// sysctlFile wants a file that systemd-sysctl reads at boot, and that is no
// package's (sysctl.d(5): /usr/lib is the vendor's).
func sysctlFile(p string) *problem {
	dir, name := filepath.Split(p)
	if dir != "/etc/sysctl.d/" && dir != "/run/sysctl.d/" {
		return &problem{quoted(p) + " is not in /etc/sysctl.d or /run/sysctl.d", `like "/etc/sysctl.d/90-qwatch.conf"`}
	}
	if !sysctlFileName.MatchString(name) {
		return &problem{quoted(p) + " would not be read at boot", `a plain name that ends in .conf: "/etc/sysctl.d/90-qwatch.conf"`}
	}
	return nil
}

var sysctlName = regexp.MustCompile(`^net(\.[a-z0-9_]+)+$`)

// sysctlKey gives the dotted form of key, which may have / for each dot
// (sysctl.d(5)); both in one key would be read in two ways.
func sysctlKey(key string) (string, *problem) {
	name := key
	if !strings.Contains(key, ".") {
		name = strings.ReplaceAll(key, "/", ".")
	}
	switch {
	case !sysctlName.MatchString(name):
		return "", &problem{quoted(key) + " is not a sysctl key in net", `qwatch touches the network's keys alone, like "net.core.netdev_max_backlog"`}
	case name == "net.core.somaxconn":
		return "", &problem{name + " does not belong here", "it is raised anyway; policy.max_backlog says how far"}
	}
	return name, nil
}

// maxAlternatives bounds what the braces of one glob may come to: each is
// expanded, and held against each name.
const maxAlternatives = 64

// glob wants a clean, absolute pattern of doublestar's. A class that holds a
// slash is refused: it is expanded one directory after the other.
func glob(p string) *problem {
	if err := absolute(p); err != nil {
		return err
	}
	if len(p) > 4095 {
		return &problem{fmt.Sprintf("a path of %d bytes is too long", len(p)), "Linux takes 4095 bytes"}
	}
	n, ok := alternatives(p)
	switch {
	case !ok, !doublestar.ValidatePattern(p):
		return &problem{quoted(p) + " is not a good glob", `close each "{", and each "[" before the next "/"; "[*]" is a star that is meant as itself`}
	case n > maxAlternatives:
		return &problem{quoted(p) + " has too many alternatives", fmt.Sprintf(`at most %d by "{" and "}" in one glob`, maxAlternatives)}
	}
	return nil
}

// alternatives counts the patterns that the braces of a valid pattern stand
// for, up to some number over maxAlternatives. ok is false where a class or a
// backslash takes a slash.
func alternatives(p string) (n int, ok bool) {
	type group struct{ done, product int } // patterns up to the last comma, and since then
	groups := []group{{product: 1}}
	class := false
	for i := 0; i < len(p); i++ {
		g := &groups[len(groups)-1]
		inside := len(groups) > 1
		switch c := p[i]; {
		case c == '\\':
			if i++; i < len(p) && p[i] == '/' {
				return 1, false
			}
		case class:
			if c == '/' {
				return 1, false
			}
			class = c != ']'
		case c == '[':
			class = true
		case c == '{':
			groups = append(groups, group{product: 1})
		case c == ',' && inside:
			g.done, g.product = g.done+g.product, 1
		case c == '}' && inside:
			groups = groups[:len(groups)-1]
			groups[len(groups)-1].product *= g.done + g.product
		}
		if g := groups[len(groups)-1]; g.done+g.product > maxAlternatives {
			return g.done + g.product, true
		}
	}
	return groups[0].product, true
}

var (
	unitPattern = regexp.MustCompile(`^[A-Za-z0-9:_.\\@*?\[\]-]+$`)
	unitSuffix  = regexp.MustCompile(`\.(service|socket|scope|slice|target|mount|timer|path|swap|device|automount)$`)
)

// unit wants a unit's name (systemd.unit(5)) or a glob of it.
func unit(p string) *problem {
	if !doublestar.ValidatePattern(p) || len(p) > 255 || !unitPattern.MatchString(p) {
		return &problem{quoted(p) + " is not a unit name or pattern", `like "uwsgi.service" or "uwsgi@*.service"`}
	}
	return nil
}

// wholeUnits adds ".service" to each name without the suffix of a unit, as
// journalctl does (systemd, unit_name_mangle_with_suffix). A glob stays: "web.*"
// is to find web.service.
func wholeUnits(units []string) []string {
	var whole []string
	for _, u := range units {
		if !unitSuffix.MatchString(u) && !strings.ContainsAny(u, "*?[") {
			u += ".service"
		}
		whole = append(whole, u)
	}
	return whole
}

// statsAddress wants where a uWSGI stats server listens; with "http://" in
// front, one that speaks HTTP (--stats-http).
func statsAddress(addr string) *problem {
	bare := strings.TrimPrefix(addr, "http://")
	if strings.HasPrefix(bare, "/") {
		return socketPath(bare)
	}
	if hostPort(bare) != nil {
		return &problem{quoted(addr) + " is not a stats server's address",
			`like "127.0.0.1:9191", a UNIX socket's absolute path, or for stats-http "http://127.0.0.1:9191"`}
	}
	return nil
}
