package remediate

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A trail that was rotated or removed while qwatch runs must still keep two of
// them from acting at once, and keep on recording.
func TestTrailRotatedWhileItRuns(t *testing.T) {
	for _, away := range []func(path string) error{
		os.Remove,
		func(path string) error { return os.Rename(path, path+".1") },
	} {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		daemon, err := OpenTrail(path)
		if err != nil {
			t.Fatal(err)
		}
		defer daemon.Close()
		before := past(2*time.Second, "inc-1.1", "relisten", Applied)
		if err := daemon.Append(before); err != nil {
			t.Fatal(err)
		}
		if _, err := daemon.History(); err != nil {
			t.Fatal(err)
		}
		if err := away(path); err != nil {
			t.Fatal(err)
		}
		unlock, err := daemon.Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		apply, err := OpenTrail(path)
		if err != nil {
			t.Fatal(err)
		}
		defer apply.Close()
		soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := apply.Lock(soon); err == nil {
			t.Error("both act at once")
		}
		if err := daemon.Append(past(time.Second, "inc-1.2", "relisten", Applied)); err != nil {
			t.Fatal(err)
		}
		unlock()
		if h, err := apply.History(); err != nil || len(h) != 1 {
			t.Errorf("the new trail holds %d events (%v), want 1", len(h), err)
		}
		if h, err := daemon.History(); err != nil || len(h) != 2 {
			t.Errorf("%d events are known (%v), want 2", len(h), err)
		}
	}
}
