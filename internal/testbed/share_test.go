package testbed

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// goTest runs testdata/shared, and returns what became of each test ("" is the
// package) and what was said.
func goTest(t *testing.T, bad string, args ...string) (results map[string]string, said string, err error) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"test", "-json"}, append(args, "./testdata/shared")...)...)
	cmd.Env = append(os.Environ(), stateEnv+"=", "SHARED_PLACE="+t.TempDir(), "SHARED_BAD="+bad)
	out, err := cmd.Output()
	results = map[string]string{}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		switch e.Action {
		case "pass", "fail", "skip":
			results[e.Test] = e.Action
		case "output":
			b.WriteString(e.Output)
		}
	}
	return results, b.String(), err
}

// Tests of a package run beside each other, and go test sees no difference.
func TestShared(t *testing.T) {
	Needs(t, "namespace", "go")
	good := map[string]string{"": "pass", "TestOne": "pass", "TestOne/sub": "pass", "TestTwo": "pass", "TestTwo/sub": "pass",
		"TestFails": "pass", "TestKilled": "pass", "TestPanics": "pass", "TestHangs": "pass", "FuzzSeeds": "pass", "FuzzSeeds/seed#0": "pass"}
	got, said, err := goTest(t, "", "-count=1")
	if err != nil || !maps.Equal(got, good) {
		t.Errorf("%v: got %v\nwant %v\n%s", err, got, good, said)
	}
	if strings.Count(said, "PASS\n") != 1 {
		t.Errorf("not one last word:\n%s", said)
	}

	got, said, err = goTest(t, "yes", "-count=1", "-timeout=10s")
	if err == nil || got[""] != "fail" || got["TestFails"] != "fail" || got["TestPanics"] != "fail" || got["TestTwo"] != "pass" {
		t.Errorf("with tests that fail: %v, %v\n%s", err, got, said)
	}
	for _, want := range []string{"as it shall", "testbed: TestKilled: ", "panic: test timed out after"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
}

// What one test asks for is run in one process, as is what is put together from
// all.
func TestNotShared(t *testing.T) {
	Needs(t, "namespace", "go")
	for _, args := range [][]string{{"-run=Fails|Seeds"}, {"-skip=One|Two"}, {"-cover", "-run=Fails"}} {
		got, said, err := goTest(t, "", append(args, "-count=2")...)
		if err != nil || got["TestFails"] != "pass" || strings.Count(said, "--- PASS: TestFails") != 2 {
			t.Errorf("%v: %v, %v\n%s", args, err, got, said)
		}
	}
}
