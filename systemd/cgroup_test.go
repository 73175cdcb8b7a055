package systemd

import (
	"strings"
	"testing"
)

func TestUnitOfCgroup(t *testing.T) {
	const id = "4f66ad0f5b9c4d1c8a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081"
	const other = "00000000000000000000000000000000000000000000000000000000000000aa"
	tests := []struct{ name, cgroup, unit, container string }{
		{"unified", "0::/system.slice/uwsgi.service", "uwsgi.service", ""},
		{"template", "0::/system.slice/system-uwsgi.slice/uwsgi@app.service", "uwsgi@app.service", ""},
		{"escaped instance", `0::/system.slice/system-uwsgi.slice/uwsgi@my\x2dapp.service`, `uwsgi@my\x2dapp.service`, ""},
		{"nested slices", "0::/apps.slice/apps-web.slice/uwsgi.service", "uwsgi.service", ""},
		{"delegated", "0::/system.slice/uwsgi.service/workers", "uwsgi.service", ""},
		{"no slice", "0::/uwsgi.service", "uwsgi.service", ""},
		{"escaped name", "0::/system.slice/_cpu.service", "cpu.service", ""},
		{"unit removed", "0::/system.slice/uwsgi.service (deleted)", "uwsgi.service", ""},
		{"hybrid", "4:memory:/system.slice\n1:name=systemd:/system.slice/uwsgi.service\n0::/system.slice/uwsgi.service", "uwsgi.service", ""},
		{"version 1", "12:cpu,cpuacct:/\n3:pids:/system.slice/x.service\n1:name=systemd:/system.slice/uwsgi.service", "uwsgi.service", ""},
		{"mixed, named hierarchy unused", "1:name=systemd:/\n0::/system.slice/uwsgi.service", "uwsgi.service", ""},
		{"another controller only", "3:pids:/system.slice/x.service", "", ""},
		{"root", "0::/", "", ""},
		{"init", "0::/init.scope", "", ""},
		{"outside the namespace", "0::/../system.slice/uwsgi.service", "", ""},
		{"session", "0::/user.slice/user-1000.slice/session-3.scope", "", ""},
		{"user's unit", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/uwsgi.service", "", ""},
		{"systemd-run scope", "0::/system.slice/run-r1.scope", "", ""},
		{"docker, systemd", "0::/system.slice/docker-" + id + ".scope", "", "docker:4f66ad0f5b9c"},
		{"docker, cgroupfs", "0::/docker/" + id, "", "docker:4f66ad0f5b9c"},
		{"docker, version 1", "2:pids:/docker/" + id + "\n1:name=systemd:/docker/" + id, "", "docker:4f66ad0f5b9c"},
		{"systemd in docker", "0::/system.slice/docker-" + id + ".scope/system.slice/uwsgi.service", "", "docker:4f66ad0f5b9c"},
		{"docker itself", "0::/system.slice/docker.service", "docker.service", ""},
		{"like docker", "0::/system.slice/docker-web.service", "docker-web.service", ""},
		{"podman", "0::/machine.slice/libpod-" + id + ".scope/container", "", "podman:4f66ad0f5b9c"},
		{"podman without root", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope", "", "podman:4f66ad0f5b9c"},
		{"kubernetes, systemd", "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-" + id + ".scope", "", "kube:4f66ad0f5b9c"},
		{"kubernetes, CRI-O", "0::/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope", "", "kube:4f66ad0f5b9c"},
		{"kubernetes, cgroupfs", "0::/kubepods/burstable/pod1-2/" + id, "", "kube:4f66ad0f5b9c"},
		{"kubernetes, containerd without systemd", "0::/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:" + id, "", "kube:4f66ad0f5b9c"},
		{"kubernetes in docker", "0::/docker/" + other + "/kubelet/kubepods/pod1-2/" + id, "", "kube:4f66ad0f5b9c"},
		{"docker in nspawn", "0::/machine.slice/systemd-nspawn@web.service/payload/system.slice/docker-" + id + ".scope", "", "docker:4f66ad0f5b9c"},
		{"Quadlet", "0::/system.slice/web.service/libpod-payload-" + id, "", "podman:4f66ad0f5b9c"},
		{"Amazon ECS", "0::/ecs/0123456789abcdef0123456789abcdef/" + id, "", "ecs:4f66ad0f5b9c"},
		{"Amazon ECS, systemd", "0::/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice/docker-" + id + ".scope", "", "docker:4f66ad0f5b9c"},
		{"containerd", "0::/default/" + id, "", "containerd:4f66ad0f5b9c"},
		{"containerd of Kubernetes", "0::/k8s.io/" + id, "", "containerd:4f66ad0f5b9c"},
		{"nerdctl", "0::/system.slice/nerdctl-" + id + ".scope", "", "containerd:4f66ad0f5b9c"},
		{"an engine that nobody knows", "0::/system.slice/box.service/crate-" + id, "", "container:4f66ad0f5b9c"},
		{"podman's health check is a service", "0::/system.slice/" + id + "-1f.service", id + "-1f.service", ""},
		{"lxc", "0::/lxc.payload.web/system.slice/uwsgi.service", "", "lxc:web"},
		{"lxc, older", "0::/lxc/web/system.slice/uwsgi.service", "", "lxc:web"},
		{"nspawn unit", "0::/machine.slice/systemd-nspawn@web.service/payload/system.slice/uwsgi.service", "", "machine:web"},
		{"nspawn unit, a hyphen as it is", "0::/machine.slice/systemd-nspawn@my-web.service/payload", "", "machine:my-web"},
		{"nspawn by hand", `0::/machine.slice/machine-my\x2dweb.scope/payload/system.slice/uwsgi.service`, "", "machine:my-web"},
		{"a manager in a unit", "0::/system.slice/box.service/payload/system.slice/uwsgi.service", "", "unit:box.service"},
		{"empty", "", "", ""},
		{"rubbish", "\n:::\nx", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			unit, container := UnitOfCgroup(tt.cgroup + "\n")
			if unit != tt.unit || container != tt.container {
				t.Errorf("UnitOfCgroup(%q) = %q, %q; want %q, %q", tt.cgroup, unit, container, tt.unit, tt.container)
			}
		})
	}
}

func TestPlaceOfUser(t *testing.T) {
	const id = "4f66ad0f5b9c4d1c8a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081"
	tests := []struct {
		cgroup string
		want   Place
	}{
		{"0::/user.slice/user-1000.slice/session-3.scope", Place{Of: "session-3.scope", User: true, UID: 1000}},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/uwsgi.service", Place{Of: "user@1000.service", User: true, UID: 1000}},
		{"0::/user.slice/user-1000.slice/user@1000.service/docker-" + id + ".scope",
			Place{Of: "user@1000.service", Container: "docker:4f66ad0f5b9c", User: true, UID: 1000}},
		{"0::/user.slice/user-0.slice/session-c1.scope", Place{Of: "session-c1.scope", User: true}},
		{"0::/user.slice/x", Place{User: true, UID: -1}},
		{"0::/lxc.payload.web/user.slice/user-1000.slice/session-3.scope", Place{Of: "lxc.payload.web", Container: "lxc:web", UID: -1}},
		{"0::/init.scope", Place{Of: "init.scope", UID: -1}},
		{"0::/", Place{UID: -1}},
		{"0::/system.slice/run-r1.scope", Place{Of: "run-r1.scope", UID: -1}},
		{"0::/system.slice/uwsgi.service", Place{Of: "uwsgi.service", Unit: "uwsgi.service", UID: -1}},
	}
	for _, tt := range tests {
		if got := PlaceOfCgroup(tt.cgroup); got != tt.want {
			t.Errorf("PlaceOfCgroup(%q) = %+v, want %+v", tt.cgroup, got, tt.want)
		}
	}
}

func FuzzUnitOfCgroup(f *testing.F) {
	f.Add("0::/system.slice/uwsgi@a.service")
	f.Add("1:name=systemd:/lxc/a/b.service (deleted)\n0::/")
	f.Fuzz(func(t *testing.T, cgroup string) {
		unit, container := UnitOfCgroup(cgroup)
		if unit != "" && (container != "" || !strings.HasSuffix(unit, ".service") || strings.ContainsAny(unit, "/\n")) {
			t.Errorf("unit %q, container %q", unit, container)
		}
	})
}
