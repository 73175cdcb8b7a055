package integration

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"qwatch/internal/testbed"
)

// scrape reads the metrics; labelled ones are under their whole name.
func scrape(t *testing.T, address string) map[string]float64 {
	t.Helper()
	answer, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && !strings.HasPrefix(name, "#") {
			if values[name], err = strconv.ParseFloat(value, 64); err != nil {
				t.Errorf("metrics: %q: %v", lines.Text(), err)
			}
		}
	}
	return values
}

// object is a JSON object.
type object = map[string]any

func (q *qwatch) status() object {
	q.t.Helper()
	out, err := exec.Command(binary, "status", "-c", q.file(), "--json").Output()
	if err != nil {
		q.t.Fatalf("qwatch status: %v", err)
	}
	var s object
	if err := json.Unmarshal(out, &s); err != nil {
		q.t.Fatalf("qwatch status: %v in %s", err, out)
	}
	return s
}

// first is the first element of an array in a status.
func first(t *testing.T, s object, name string) object {
	t.Helper()
	list, _ := s[name].([]any)
	if len(list) == 0 {
		t.Fatalf("status has no %s: %v", name, s)
	}
	return list[0].(object)
}

// What status and the metrics say of an open incident, beside what ss says.
func TestStatus(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	metrics := "127.0.0.1:19919"
	q := start(t, settings{Source: u.LogFile, Metrics: metrics, Probe: "1s"})
	flood(t, u, 400, 0)
	q.waitFor("fixed at ")

	s := q.status()
	wantKeys(t, "status", s, "version started dry_run sources sockets incidents actions cannot")
	wantKeys(t, "source", first(t, s, "sources"), "name kind lines bytes hits error")
	wantKeys(t, "socket", first(t, s, "sockets"), "socket pid unit length limit hits drops")
	wantKeys(t, "incident", first(t, s, "incidents"), "id socket state first last hits peak limit plan")
	wantKeys(t, "action", first(t, s, "actions"), "time plan incident socket action target from to dry_run result why")
	incident, socket, source := first(t, s, "incidents"), first(t, s, "sockets"), first(t, s, "sources")
	if incident["state"] != "open" || incident["socket"] != u.Address || incident["plan"] == nil || incident["peak"].(float64) < 100 {
		t.Errorf("incident: %v", incident)
	}
	if socket["socket"] != u.Address || socket["pid"] != float64(u.Pid) || socket["limit"] != float64(1024) || socket["unit"] != nil {
		t.Errorf("socket: %v", socket)
	}
	if source["name"] != u.LogFile || source["kind"] != "file" || source["error"] != nil {
		t.Errorf("source: %v", source)
	}
	if n := strings.Count(u.Log(), " full !!! "); source["hits"] != float64(n) {
		t.Errorf("%v hits, but %d records in the log", source["hits"], n)
	}
	if got := len(s["actions"].([]any)); got != len(q.trail(t)) {
		t.Errorf("%d actions, but %d in the trail", got, len(q.trail(t)))
	}

	m := scrape(t, metrics)
	for name, want := range map[string]float64{
		`qwatch_queue_limit{socket="` + u.Address + `"}`:           1024,
		`qwatch_incidents_open`:                                    1,
		`qwatch_incidents_total`:                                   1,
		`qwatch_dry_run`:                                           0,
		`qwatch_hits_total`:                                        source["hits"].(float64),
		`qwatch_actions_total{action="relisten",result="applied"}`: 1,
	} {
		if got, ok := m[name]; !ok || got != want {
			t.Errorf("metric %s = %v, %v; want %v", name, got, ok, want)
		}
	}

	if drops := m[`qwatch_queue_drops_total{socket="`+u.Address+`"}`]; drops < 1 || drops > float64(overflows(t)) {
		t.Errorf("%v drops of %d overflows", drops, overflows(t))
	}

	out, err := exec.Command(binary, "status", "-c", q.file()).Output()
	if err != nil || !strings.Contains(string(out), u.Address) || !strings.Contains(string(out), "relisten") {
		t.Errorf("status in words: %v\n%s", err, out)
	}
}

// A second daemon over the same state is refused, and the first goes on.
func TestSecondDaemon(t *testing.T) {
	fresh(t)
	u := uwsgi(t, testbed.Options{})
	q := start(t, settings{Source: u.LogFile})
	out, err := exec.Command(binary, "run", "-c", filepath.Join(q.dir, "qwatch.toml")).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
		t.Errorf("second daemon: %v, want status 1", err)
	}
	if !strings.Contains(string(out), "qwatch: error: another qwatch runs with "+q.StateDir()) || !strings.Contains(string(out), "qwatch: hint: ") {
		t.Errorf("second daemon says:\n%s", out)
	}
	if got := first(t, q.status(), "sockets")["socket"]; got != u.Address {
		t.Errorf("the first one sees %v", got)
	}
}

// overflows are all of this namespace.
func overflows(t *testing.T) int {
	t.Helper()
	n, err := testbed.ListenOverflows()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
