package remediate

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qwatch/matcher"
	"qwatch/remediate/facts"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestPlanJSON(t *testing.T) {
	p := defaults()
	p.Reload = Always
	lost := Case{Facts: full().Facts, Lost: os.ErrNotExist}
	lost.Incident.ID = "inc-2"
	asked := full()
	asked.Incident, asked.Serial = matcher.Incident{}, 1
	asked.Evidence = facts.Evidence{Samples: 1, Limit: 128}
	ceiling := full()
	ceiling.limit(8192)
	for name, plan := range map[string]Plan{
		"act":     Decide(p, full(), nil, now),
		"wait":    Decide(p, full(), History{past(time.Second, "inc-1.1", "relisten", Applied)}, now),
		"refuse":  Decide(p, ceiling, nil, now),
		"lost":    Decide(p, lost, nil, now),
		"nothing": Decide(p, asked, nil, now),
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(plan)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte(`:""`)) {
				t.Errorf("an absent value is written as \"\": %s", text)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, text, "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			golden := filepath.Join("testdata", "plan-"+name+".json")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s (-want +got)\n%s", golden, diff)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	n := func(n int) *int { return &n }
	s := full().Socket
	far := s
	far.OtherNetNS = true
	tests := []struct {
		action Action
		says   string
		want   Description
	}{
		{SetSysctl{Key: "net.core.somaxconn", From: 128, To: 1024, File: "/etc/sysctl.d/90-qwatch.conf", Why: "w"},
			"set net.core.somaxconn from 128 to 1024, kept in /etc/sysctl.d/90-qwatch.conf",
			Description{"sysctl", "net.core.somaxconn", n(128), n(1024), "w"}},
		{SetSysctl{Key: "net.core.somaxconn", From: 1024, To: 0, Undo: true, Why: "w"},
			"set net.core.somaxconn from 1024 to 0",
			Description{"sysctl", "net.core.somaxconn", n(1024), n(0), "w"}},
		{Relisten{Socket: s, From: 128, To: 1024, Why: "w"},
			"listen again on 127.0.0.1:5000 of uWSGI 1234: backlog from 128 to 1024",
			Description{"relisten", "127.0.0.1:5000", n(128), n(1024), "w"}},
		{Relisten{Socket: far, From: 128, To: 1024, Why: "w"},
			"listen again on 127.0.0.1:5000 in netns:1 of uWSGI 1234: backlog from 128 to 1024",
			Description{"relisten", "127.0.0.1:5000 in netns:1", n(128), n(1024), "w"}},
		{Reload{Socket: s, Way: Way{Kind: WayHUP}, Why: "w"},
			"reload uWSGI 1234 (hup)",
			Description{"reload", "uwsgi 1234 (app.service)", nil, nil, "w"}},
		{Start{Unit: "app.service", Why: "w"}, "start app.service", Description{"start", "app.service", nil, nil, "w"}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.says, test.action.String()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(test.want, test.action.Describe()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", test.says, diff)
		}
	}
}

func TestNames(t *testing.T) {
	s := full().Socket
	if got := s.Key(); got != "1234.99/127.0.0.1:5000" {
		t.Errorf("key %s", got)
	}
	s.OtherNetNS, s.Master.Container = true, "web"
	if got := s.Name(); got != "127.0.0.1:5000 in web" {
		t.Errorf("name %s", got)
	}
	if got := (facts.Process{Comm: "uwsgi", PID: 7}).String(); got != "uwsgi 7" {
		t.Errorf("process %s", got)
	}
	// JSON must not change a name: it is what history is looked up by.
	s = facts.Socket{Family: facts.Unix, Address: "/run/\xff\xfe<&>\u2028.sock"}
	text, err := json.Marshal(s.Name())
	var back string
	if err := errors.Join(err, json.Unmarshal(text, &back)); err != nil || back != s.Name() || !strings.HasSuffix(back, ".sock") {
		t.Errorf("%q comes back as %q (%v)", s.Name(), back, err)
	}
}
