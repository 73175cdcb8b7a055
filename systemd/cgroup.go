package systemd

import (
	"path"
	"strings"
)

// UnitOfCgroup finds out from the content of /proc/PID/cgroup which service of
// the system manager a process belongs to, for example "uwsgi@app.service".
//
// A process in a container (docker, podman, containerd, CRI-O, LXC, nspawn) has
// no unit that this host's manager could reload: unit is "" and container
// names where it lives, for example "docker:4f66ad0f5b9c" or "lxc:web". One in
// a user's session has neither.
//
// The names are the kernel's; only a process with rights over the cgroup can
// have made them. The path is relative to the reader's cgroup namespace
// (cgroup_namespaces(7)).
func UnitOfCgroup(cgroup string) (unit, container string) {
	parts := strings.Split(strings.Trim(cgroupPath(cgroup), "/"), "/")
	for i, part := range parts {
		if c := containerOf(parts[:i], part); c != "" {
			return "", c
		}
	}
	for i, part := range parts {
		part = strings.TrimPrefix(part, "_") // cg_escape, src/basic/cgroup-util.c
		if strings.HasSuffix(part, ".slice") {
			continue
		}
		if path.Ext(part) != ".service" || strings.HasPrefix(part, "user@") || part == ".service" {
			return "", "" // a session, a user's manager, or not systemd's at all
		}
		for _, inner := range parts[i+1:] {
			if ext := path.Ext(inner); ext == ".service" || ext == ".slice" || ext == ".scope" {
				return "", "unit:" + part // another manager runs in this unit
			}
		}
		return part, ""
	}
	return "", ""
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
	name := strings.TrimSuffix(part, ".scope")
	// Managers that talk to systemd: ENGINE-ID.scope.
	for _, s := range [...][2]string{
		{"docker-", "docker"}, {"libpod-", "podman"}, {"cri-containerd-", "kube"}, {"crio-", "kube"},
	} {
		if id, ok := strings.CutPrefix(name, s[0]); ok && isContainerID(id) {
			return s[1] + ":" + id[:12]
		}
	}
	// Those that make cgroups themselves: docker/ID, kubepods/…/podUID/ID.
	if isContainerID(name) {
		switch {
		case parent == "docker":
			return "docker:" + name[:12]
		case parent == "libpod_parent" || parent == "libpod":
			return "podman:" + name[:12]
		case strings.HasPrefix(parent, "pod") && len(above) > 1 && strings.HasPrefix(above[0], "kube"):
			return "kube:" + name[:12]
		}
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

// isContainerID tells a container's number, 64 hexadecimal digits.
func isContainerID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// unescapeUnit gives an instance its hyphens back, the only character of a
// machine's name that systemd-escape(1) changes. One that stands unescaped, as
// in systemd-nspawn@my-web.service, stays: it is no slash here.
func unescapeUnit(s string) string { return strings.ReplaceAll(s, `\x2d`, "-") }
