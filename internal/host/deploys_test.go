package host

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"qwatch/internal/kernel"
	"qwatch/internal/uwsgi"
	"qwatch/remediate/facts"
)

// deploysHost is a host with one uWSGI, whose files are looked at by the test.
type deploysHost struct {
	*Host
	t      *testing.T
	socket facts.Socket
	asked  int
	takes  time.Duration
}

func newDeploysHost(t *testing.T, o Options) *deploysHost {
	o.Deploys = true
	h := &deploysHost{Host: &Host{}, t: t, takes: 100 * time.Millisecond}
	h.options.Store(&o)
	h.lookups.init(h.Host)
	h.lookups.deploys.Ask = func(ctx context.Context, _ deployKey) (facts.Deploy, error) {
		h.asked++
		d := facts.Deploy{Image: uint64(h.asked)}
		select {
		case <-time.After(h.takes):
			return d, nil
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
	master := &kernel.Process{PID: 7}
	h.walked.owned = map[uint64]owner{1: {master: master}}
	h.socket = facts.Socket{ID: facts.SocketID{Inode: 1}, Master: h.identity(master)}
	h.reloadable = []uwsgi.Process{uwsgi.ProcessOf(h.socket.Master)}
	return h
}

// look is what Sample and Observe do, after a while.
func (h *deploysHost) look(after time.Duration, length int, drops uint32) {
	time.Sleep(after)
	synctest.Wait()
	h.hurry(h.options.Load(), []facts.Sample{{ID: h.socket.ID, At: time.Now(), Length: length, Limit: 100, Drops: facts.Known(drops)}})
	h.lookups.deploys.Start(h.deployKeys())
}

// want compares how often the files were looked at, and which look is shown; 0 is
// none, for a reason that begins with why.
func (h *deploysHost) want(asked, shown int, why string) {
	h.t.Helper()
	synctest.Wait()
	d := h.deploy(&h.socket)
	if h.asked != asked || d.Image != uint64(shown) || shown == 0 && !strings.HasPrefix(d.Lost.Unseen(), why) {
		h.t.Errorf("asked %d times, shown is %d, %q; want %d, %d, %q", h.asked, d.Image, d.Lost.Unseen(), asked, shown, why)
	}
}

// What a decision may go by was looked at since the queue was full, and again and
// again; else it is seldom looked at.
func TestDeployIsLookedAtAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDeploysHost(t, Options{})
		h.look(0, 0, 0)
		h.want(1, 0, "it has not answered for 0s")
		h.look(15*time.Second, 0, 0)
		h.want(1, 1, "")
		// An old look is none where something is to be decided.
		h.look(0, 50, 0)
		h.want(2, 0, "its files were looked at 15s before its queue was full, and not yet since (it has not answered for 0s)")
		h.look(250*time.Millisecond, 0, 0)
		h.want(2, 2, "")
		// It goes on while a decision may come, and what was seen stands meanwhile.
		h.look(time.Second, 0, 0)
		h.want(3, 2, "")
		h.look(10*time.Second, 0, 0)
		h.want(4, 3, "")
		h.look(15*time.Second, 0, 0)
		h.want(4, 4, "")
		// It overflows between two looks.
		h.look(0, 0, 3)
		h.want(5, 0, "its files were looked at 15s before its queue was full")
		h.look(time.Second, 0, 3)
		h.want(5, 5, "")
		// Then they do not answer.
		h.takes = time.Hour
		h.look(2*time.Second, 60, 3)
		h.want(6, 5, "")
		h.look(20*time.Second, 60, 3)
		h.want(7, 0, "it has not answered for 20s")
		time.Sleep(time.Minute) // its questions end
	})
}

// Many files are not read all the time.
func TestDeployOfManyFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDeploysHost(t, Options{})
		h.takes = 3 * time.Second
		h.look(0, 100, 0)
		for range 60 {
			h.look(time.Second, 100, 0)
			synctest.Wait()
			if d := h.deploy(&h.socket); h.asked > 1 && int(d.Image) < h.asked-1 {
				t.Errorf("asked %d times, shown is %d, %q", h.asked, d.Image, d.Lost.Unseen())
			}
			for range 2 { // those who look between
				h.look(250*time.Millisecond, 100, 0)
			}
		}
		if h.asked > 8 {
			t.Errorf("looked at %d times in 90 s, for 3 s each", h.asked)
		}
		time.Sleep(time.Minute)
	})
}

// Where a record alone decides, no queue need have been seen full.
func TestDeployForRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDeploysHost(t, Options{Records: true})
		h.look(0, 0, 0)
		h.look(15*time.Second, 0, 0)
		h.want(1, 1, "")
		h.pressAll(time.Now())
		h.look(0, 0, 0)
		h.want(2, 0, "its files were looked at 15s before its queue was full")
		time.Sleep(time.Minute)
	})
}
