package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qwatch/internal/testbed"
)

// command runs qwatch with a configuration and compares its exit status.
func command(t *testing.T, s settings, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(binary, append(args, "-c", s.file())...)
	var out, words strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("qwatch %v: exit status %d, want %d\n%s%s", args, got, status, &out, &words)
	}
	return out.String(), words.String()
}

func parse(t *testing.T, text string) object {
	t.Helper()
	var o object
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return o
}

// wantKeys looks for the keys that users script against; there may be more.
func wantKeys(t *testing.T, what string, o object, keys string) {
	t.Helper()
	for key := range strings.FieldsSeq(keys) {
		if _, ok := o[key]; !ok {
			t.Errorf("%s has no %q: %v", what, key, o)
		}
	}
}

// What a person does with a full queue: doctor, plan, apply, and undo.
func TestByHand(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	s := settings{dir: directory(t)}
	replace(t, s.file(), s.text(t))

	out, _ := command(t, s, 0, "plan")
	if !strings.Contains(out, u.Address+": nothing: the queue is not full") {
		t.Errorf("plan of an empty queue:\n%s", out)
	}
	_, words := command(t, s, 2, "plan", "--socket", "127.0.0.1:1")
	if !strings.Contains(words, "no uWSGI listens on 127.0.0.1:1") {
		t.Errorf("plan of no socket says:\n%s", words)
	}
	flood(t, u, 700, 60) // which the raised queue holds
	full(t, u)
	before := hostOf(t, u)
	out, _ = command(t, s, 3, "plan", "--json", "--socket", u.Address)
	p := parse(t, out)
	wantKeys(t, "plan", p, "id incident socket dry_run verdict reason target actions")
	wantKeys(t, "action", first(t, p, "actions"), "action target from to why")
	if p["verdict"] != "act" || p["target"] != float64(1024) || p["socket"] != u.Address {
		t.Errorf("plan: %v", p)
	}
	out, _ = command(t, s, 3, "doctor", "--json")
	d := parse(t, out)
	wantKeys(t, "doctor", d, "somaxconn boot sockets can problems")
	wantKeys(t, "boot", d["boot"].(object), "somaxconn file")
	wantKeys(t, "can", d["can"].(object), "sysctl sysctl_file relisten reload journal")
	socket := first(t, d, "sockets")
	wantKeys(t, "socket", socket, "socket family pid unit netns length limit configured binds advice")
	if socket["socket"] != u.Address || socket["limit"] != float64(100) || socket["configured"] != float64(100) || socket["binds"] != "listen" {
		t.Errorf("doctor: %v", socket)
	}
	_, words = command(t, s, 1, "apply")
	if !strings.Contains(words, "qwatch: error: nothing was done: not confirmed") || !strings.Contains(words, "qwatch: hint: ") {
		t.Errorf("apply says:\n%s", words)
	}
	after := hostOf(t, u)
	if diff := cmp.Diff(before.Files, after.Files); diff != "" || after.Somaxconn != before.Somaxconn || after.Limit != 100 {
		t.Errorf("plan, doctor or apply without a yes changed the host: limit %d, somaxconn %d, files (-before +after):\n%s", after.Limit, after.Somaxconn, diff)
	}

	command(t, s, 0, "apply", "--yes")
	wantLimit(t, u, 1024)
	wantSomaxconn(t, 1024)
	if _, err := os.Stat("/etc/sysctl.d/90-qwatch.conf"); err != nil {
		t.Error(err)
	}

	_, words = command(t, s, 1, "undo")
	if !strings.Contains(words, "not confirmed") {
		t.Errorf("undo says:\n%s", words)
	}
	wantSomaxconn(t, 1024)
	out, _ = command(t, s, 0, "undo", "--yes")
	// Not below the largest listen backlog, which here is configured: 100.
	wantLimit(t, u, 100)
	wantSomaxconn(t, testbed.StartSomaxconn)
	if text, err := os.ReadFile("/etc/sysctl.d/90-qwatch.conf"); err == nil && strings.Contains(string(text), "\nnet.") {
		t.Errorf("sysctl.d file after undo:\n%s", text)
	}
	if t.Failed() {
		t.Log(out)
	}
}
