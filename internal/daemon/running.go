package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"qwatch/systemd"
	"qwatch/tailer"
	"qwatch/tailer/file"
	"qwatch/tailer/journal"
)

// running is a source and its task.
type running struct {
	tailer.Source
	key   string   // what of the configuration it follows
	globs []string // of files
	make  func(tailer.Handler) (tailer.Source, error)
	stop  context.CancelFunc
	ended chan struct{}
	left  atomic.Bool // it was left behind as it does not end: it is not heard any more
	pulse pulse
}

func newRunning(kind string, of []string) *running {
	return &running{key: fmt.Sprintf("%s %q", kind, of), ended: make(chan struct{}), pulse: pulse{found: make(chan struct{})}}
}

func (r *running) same(other *running) bool { return r.key == other.key }

// start makes and runs those of the wanted that do not run yet.
func (s *sources) start(ctx context.Context, wanted []*running) error {
	before := s.all()
	var list []*running
	for _, r := range wanted {
		if i := slices.IndexFunc(before, r.same); i >= 0 {
			list = append(list, before[i])
			continue
		}
		var err error
		if r.Source, err = r.make(func(c tailer.Chunk) { s.handle(r, c) }); err != nil {
			return err
		}
		list = append(list, r)
	}
	s.mu.Lock()
	s.list = list
	s.mu.Unlock()
	s.look()
	for _, r := range list {
		if r.stop == nil {
			s.run(ctx, r)
		}
	}
	return nil
}

// look has watchPulses look at what is at work now.
func (s *sources) look() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// run runs a source until ctx ends, or stop is called.
func (s *sources) run(ctx context.Context, r *running) {
	ctx, r.stop = context.WithCancel(ctx)
	go func() {
		defer close(r.ended)
		if err := r.Run(ctx); err != nil && ctx.Err() == nil {
			select {
			case s.failed <- fmt.Errorf("%s: %w", r, err):
			default: // one is enough
			}
		}
	}()
}

// stopTime is how long the end of sources is waited for. One that is known to hang,
// in a read of a file system that is gone, is not waited for: it keeps nobody from
// stopping, nor from a new configuration.
const stopTime = 5 * time.Second

// drop stops sources, and waits for their end.
func (s *sources) drop(which func(*running) bool) {
	var keep, gone []*running
	for _, r := range s.all() {
		if which(r) {
			r.stop()
			gone = append(gone, r)
		} else {
			keep = append(keep, r)
		}
	}
	patience := time.NewTimer(stopTime)
	defer patience.Stop()
	for _, r := range gone {
		if !r.pulse.hangs.Load() {
			select {
			case <-r.ended:
				continue
			case <-patience.C:
				patience.Reset(0)
			}
		}
		select {
		case <-r.ended:
		default:
			s.leave(r)
		}
	}
	s.mu.Lock()
	s.list = keep
	s.mu.Unlock()
}

// leave leaves a source behind that does not end.
func (s *sources) leave(r *running) {
	r.left.Store(true)
	if f, ok := r.Source.(interface{ Leave() }); ok {
		f.Leave()
	}
	s.log.Error().Str("source", fmt.Sprint(r)).Msgf("%s does not stop and is left behind; the next to follow it goes on where it was", r)
}

func isReady(src tailer.Source) bool {
	select {
	case <-src.Ready():
		return true
	default:
		return false
	}
}

// pulse is what is known of whether a source hangs. Only watchPulses uses what is
// not safe by itself.
type pulse struct {
	hangs atomic.Bool
	found chan struct{} // closed when it was found to hang
	once  sync.Once
	step  int64
	still time.Duration // it has come no step further for so long
}

const (
	// startPatience is how long a source may be at one thing before it comes up
	// until it is found to hang, hangPatience later on.
	startPatience = 700 * time.Millisecond
	hangPatience  = 2 * time.Second
	// pulseEvery is how often that is looked at, startPulse while one comes up, and
	// restPulse while none has anything to do.
	pulseEvery = time.Second
	startPulse = 50 * time.Millisecond
	restPulse  = 5 * time.Second
)

// watchPulses finds the sources that hang, and tells of each once. It adds up
// its own waits, not what the clock says: where the whole machine stands still,
// none of them hangs.
func (s *sources) watchPulses(ctx context.Context) error {
	timer, looked := time.NewTimer(0), time.Now()
	defer timer.Stop()
	for {
		every := restPulse
		for _, r := range s.all() {
			every = min(every, r.pulseIn())
		}
		timer.Reset(every - time.Since(looked))
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
			continue
		case <-timer.C:
			looked = time.Now()
		}
		for _, r := range s.all() {
			s.feel(r, every)
		}
		s.forgetHits()
	}
}

// pulseIn is when to look at a source again.
func (r *running) pulseIn() time.Duration {
	if r.pulse.hangs.Load() {
		return pulseEvery
	}
	if !isReady(r) {
		return startPulse
	}
	if living, ok := r.Source.(pulsing); ok {
		if _, rests := living.Pulse(); !rests {
			return pulseEvery
		}
	}
	return restPulse
}

// pulsing is a source that tells its pulse.
type pulsing interface {
	Pulse() (step int64, rests bool)
}

// feel notes how a source fares, after a wait.
func (s *sources) feel(r *running, waited time.Duration) {
	living, ok := r.Source.(pulsing)
	if !ok {
		return
	}
	p := &r.pulse
	if step, rests := living.Pulse(); rests || step != p.step {
		p.step, p.still = step, 0
		if p.hangs.CompareAndSwap(true, false) {
			s.log.Warn().Str("source", fmt.Sprint(r)).Msgf("%s answers again and is read on", r)
			s.refresh()
		}
		return
	}
	p.still += waited
	if p.still < startPatience || isReady(r) && p.still < hangPatience || p.hangs.Load() {
		return
	}
	p.hangs.Store(true)
	p.once.Do(func() { close(p.found) })
	s.log.Error().Str(eventField, systemd.EventSourceUnreadable).Str("source", fmt.Sprint(r)).
		Msgf("%s: %v; all other sources are followed; see which mount it is (ls hangs there, too) and get that to answer, or unmount it (umount -l)", r, errHangs)
	s.refresh()
}

// errHangs is the state of all that a source follows which hangs.
var errHangs = errors.New("does not answer (its file system hangs?), so what is written there waits")

// status is what the source tells of itself. What hangs cannot tell: each of its
// names is in doubt, and so is whether there are others.
func (r *running) status() []tailer.Status {
	all := r.Status()
	if !r.pulse.hangs.Load() {
		return all
	}
	for i := range all {
		if all[i].Error == nil {
			all[i].Error = errHangs
		}
	}
	names := r.globs
	if len(names) == 0 {
		names = []string{r.String()}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(st tailer.Status) bool { return st.Name == name }) {
			all = append(all, tailer.Status{Name: name, Kind: "file", Error: errHangs})
		}
	}
	return all
}

// answering is a source that reads no file system but the state directory's: where
// it hangs a restart may help.
type answering interface {
	// Alive returns nil when Run's loop answers, and an error if ctx ends first.
	Alive(ctx context.Context) error
}

var (
	_ pulsing   = (*file.Files)(nil)
	_ answering = (*journal.Journal)(nil)
)

// alive reports whether the loop of every source turns that answers and once was
// ready. One that was not would hang again after a restart, and so would those of
// files: by that all others would be lost too. watchPulses tells of them.
func (s *sources) alive(ctx context.Context) error {
	for _, r := range s.all() {
		living, ok := r.Source.(answering)
		if !ok || !isReady(r) {
			continue
		}
		if err := living.Alive(ctx); err != nil {
			return fmt.Errorf("%s stands still: %w", r, err)
		}
	}
	return nil
}
