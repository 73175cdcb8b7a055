package host

import (
	"net"
	"slices"
	"strings"
	"testing"

	"qwatch/internal/kernel"
	"qwatch/remediate/facts"
)

// Where the counters of a network namespace cannot be read, the queues there are
// sampled nevertheless, as are all others, and it is said.
func TestUncounted(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	h := newHost(t, options)
	observe(t, h)
	views, _, err := h.dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := views[0]
	at := slices.IndexFunc(good.listeners, func(l kernel.Listener) bool { return l.Address() == listener.Addr().String() })
	if at < 0 {
		t.Fatal("not seen to listen")
	}
	h.walked.owned = map[uint64]owner{good.listeners[at].Inode: {}}
	broken := good
	if broken.netns, err = kernel.OpenNetNS(); err != nil {
		t.Fatal(err)
	}
	broken.netns.Close()
	samples := h.sample(good, h.sample(broken, nil))
	const why = "the counters of the network namespace "
	if len(samples) != 2 || !strings.HasPrefix(samples[0].Uncounted, why) || samples[1].Uncounted != "" || samples[0].Limit != samples[1].Limit {
		t.Fatalf("%+v", samples)
	}
	if n := samples[1].Overflowed(samples[0]); n.State != facts.StateUnknown || n.Why != samples[0].Uncounted {
		t.Errorf("%+v", n)
	}
	h.walked.owned = nil
	if s := observe(t, h); !slices.ContainsFunc(s.Unseen, func(line string) bool { return strings.HasPrefix(line, "overflows: "+why) }) {
		t.Errorf("%q", s.Unseen)
	}
}
