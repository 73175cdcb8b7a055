package systemd

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// Place is where in the host's cgroups a process runs.
type Place struct {
	// Unit is the service of the system manager, "" where there is none.
	Unit string
	// Container is the container, for example "docker:4f66ad0f5b9c" or
	// "lxc:web", "" where it is none.
	Container string
	// Of is the unit at the top of the path, of whatever kind and whoever's:
	// "session-3.scope", "user@1001.service"; "" where there is none.
	Of string
	// User says that all this is below a user's slice, and UID whose: what
	// stands there may have any name that this user likes (user@.service is
	// delegated to him).
	User bool
	UID  int
}

// UnitOfCgroup is the unit and the container of PlaceOfCgroup.
func UnitOfCgroup(cgroup string) (unit, container string) {
	p := PlaceOfCgroup(cgroup)
	return p.Unit, p.Container
}

// PlaceOfCgroup finds out from the content of /proc/PID/cgroup which service of
// the system manager a process belongs to, for example "uwsgi@app.service".
//
// A process in a container (docker, podman, containerd, CRI-O, LXC, nspawn) has
// no unit that this host's manager could reload, also where the engine has put
// it below one (Quadlet). One in a user's session has no unit either. Of
// several containers in each other it is the innermost.
//
// The names are the kernel's; only a process with rights over the cgroup can
// have made them. The path is relative to the reader's cgroup namespace
// (cgroup_namespaces(7)).
func PlaceOfCgroup(cgroup string) Place {
	parts := strings.Split(strings.Trim(cgroupPath(cgroup), "/"), "/")
	p := Place{UID: -1}
	outermost := len(parts)
	for i := len(parts) - 1; i >= 0; i-- {
		if c := containerOf(parts[:i], parts[i]); c != "" {
			if outermost = i; p.Container == "" {
				p.Container = c
			}
		}
	}
	for i, part := range parts {
		part = strings.TrimPrefix(part, "_") // cg_escape, src/basic/cgroup-util.c
		if strings.HasSuffix(part, ".slice") {
			if uid, ok := userOfSlice(part); i < outermost && (ok || part == "user.slice") {
				p.User, p.UID = true, uid
			}
			continue
		}
		if path.Ext(part) != "" {
			p.Of = part
		}
		if p.Container != "" || path.Ext(part) != ".service" || strings.HasPrefix(part, "user@") || part == ".service" {
			return p // a session, a user's manager, or not systemd's at all
		}
		for _, inner := range parts[i+1:] {
			if ext := path.Ext(inner); ext == ".service" || ext == ".slice" || ext == ".scope" {
				p.Container = "unit:" + part // another manager runs in this unit
				return p
			}
		}
		p.Unit = part
		return p
	}
	return p
}

// userOfSlice reads "user-1001.slice"; -1 for another one.
func userOfSlice(slice string) (uid int, ok bool) {
	digits, ok := strings.CutPrefix(strings.TrimSuffix(slice, ".slice"), "user-")
	if !ok {
		return -1, false
	}
	uid, err := strconv.Atoi(digits)
	if err != nil {
		return -1, false // user-1001-x.slice, which stands in the user's
	}
	return uid, true
}

// cgroupPath picks the path in systemd's own hierarchy: the unified one, or
// where the host is hybrid or version 1, "name=systemd" (cgroups(7)).
func cgroupPath(cgroup string) string {
	var unified, named string
	for line := range strings.Lines(cgroup) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), " (deleted)")
		_, rest, _ := strings.Cut(line, ":")
		controllers, p, _ := strings.Cut(rest, ":")
		switch controllers {
		case "":
			unified = p
		case "name=systemd":
			named = p
		}
	}
	if named != "" && named != "/" {
		return named
	}
	return unified
}

// containerOf names the container that the cgroup part, below the cgroups
// above, stands for.
func containerOf(above []string, part string) string {
	parent := ""
	if len(above) > 0 {
		parent = above[len(above)-1]
	}
	if engine, id := splitID(part); id != "" {
		switch {
		case engines[engine] != "":
			engine = engines[engine]
		case slices.ContainsFunc(above, func(s string) bool { return strings.HasPrefix(s, "kube") }):
			engine = "kube"
		case len(above) > 0 && above[0] == "ecs":
			engine = "ecs"
		case engine == "" && engines[parent] != "":
			engine = engines[parent]
		default:
			engine = "container"
		}
		return engine + ":" + id[:12]
	}
	if id, ok := strings.CutPrefix(part, "lxc.payload."); ok && id != "" {
		return "lxc:" + id
	}
	if parent == "lxc" && len(above) == 1 {
		return "lxc:" + part
	}
	// Machines (systemd-machined(8)), their names escaped as unit names.
	if id, ok := strings.CutPrefix(part, "systemd-nspawn@"); ok {
		return "machine:" + unescapeUnit(strings.TrimSuffix(id, ".service"))
	}
	if id, ok := strings.CutPrefix(part, "machine-"); ok && strings.HasSuffix(id, ".scope") {
		return "machine:" + unescapeUnit(strings.TrimSuffix(id, ".scope"))
	}
	return ""
}

// engines are what stands in front of a container's number, or above it where
// an engine makes its cgroups itself.
var engines = map[string]string{
	"docker": "docker",
	"libpod": "podman", "libpod-payload": "podman", "libpod_parent": "podman",
	"cri-containerd": "kube", "crio": "kube",
	"nerdctl": "containerd", "default": "containerd", "k8s.io": "containerd",
}

// splitID takes a cgroup of a container apart: ID, ENGINE-ID.scope, and
// SLICE:ENGINE:ID, as runc's systemd driver has it where it has no systemd.
// id is "" for anything else; a unit that ends in a number is none.
func splitID(part string) (engine, id string) {
	name := strings.TrimSuffix(part, ".scope")
	at := len(name) - idLength
	if at < 0 || !isContainerID(name[at:]) || at > 0 && name[at-1] != '-' && name[at-1] != ':' {
		return "", ""
	}
	engine = name[:max(at-1, 0)]
	return engine[strings.LastIndexByte(engine, ':')+1:], name[at:]
}

// idLength is that of a container's number.
const idLength = 64

// isContainerID tells a container's number, 64 hexadecimal digits.
func isContainerID(s string) bool {
	return len(s) == idLength && strings.Trim(s, "0123456789abcdef") == ""
}

// unescapeUnit gives an instance its hyphens back, the only character of a
// machine's name that systemd-escape(1) changes. One that stands unescaped, as
// in systemd-nspawn@my-web.service, stays: it is no slash here.
func unescapeUnit(s string) string { return strings.ReplaceAll(s, `\x2d`, "-") }
