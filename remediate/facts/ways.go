package facts

// Ways is what is known of how a master can be asked for a reload, and of whom
// that would reach besides.
type Ways struct {
	// Service is the master's unit as systemd knows it, absent where it has none
	// or no systemd runs here.
	Service Fact[Service]
	// NoSignal says why qwatch may not signal the master, absent where it may.
	NoSignal Fact[string]
	// Others are the uWSGIs in the master's unit that are neither it nor its
	// workers, Vassals those that an emperor has started which the master is, or
	// has below it: each as "uwsgi 12 (127.0.0.1:5001)".
	Others, Vassals []string
	// Hidden says why there may be more of Others, of Vassals, and of routers than
	// were seen, "" where all were.
	Hidden string
	// Emperor is true where the master is an emperor itself.
	Emperor bool
	// Sharers are the other uWSGIs that hold the socket and are no workers of the
	// master ("uwsgi 12, uwsgi 13"); absent where there are none.
	Sharers Fact[string]
	// Router is a process of the master's that carries requests to its workers
	// ("uwsgi 12"), "" where none is seen.
	Router string
}

// Service is a unit as systemd knows it.
type Service struct {
	MainPID   int  // 0 for none
	CanReload bool // it has ExecReload=, or is of Type=notify-reload
}

// Orders are what a configuration says of reloads, each with the place where it
// stands ("/etc/uwsgi/app.ini:3"), "" for nowhere.
type Orders struct {
	LazyApps string // lazy-apps: each worker loads the application itself
	Router   string // the option that starts a router, and where: "http, /etc/uwsgi/app.ini:3"
	Zerg     string // the option that makes it one of a zerg pool, likewise
	Emperor  string // the option that makes it, or a child of it, an emperor, likewise
	// FIFO is the master FIFO that the master reads, absent where there is none.
	FIFO Fact[FIFO]
	// Asked is what the file that policy.reload.how names is to this uWSGI,
	// absent where it is nothing to it.
	Asked Fact[Trigger]
}

// FIFO is a master FIFO.
type FIFO struct {
	Path   string
	Cannot string // why qwatch may not write to it, "" where it may
}

// Trigger is a file that a uWSGI watches.
type Trigger struct {
	Option string // touch-reload, master-fifo, ...
	At     string
	// Cannot says why qwatch may not write the file, or set its times, "" where
	// it may.
	Cannot string
}

// Reloads reports whether all that a change of the file does is a graceful reload,
// or one of the workers alone (core/master.c, master_loop).
func (t Trigger) Reloads() bool {
	return t.Option == "touch-reload" || t.Option == "fs-reload" || t.WorkersOnly()
}

// WorkersOnly reports whether it reloads the workers, and neither executes the
// master anew nor ends what else it runs.
func (t Trigger) WorkersOnly() bool {
	return t.Option == "touch-workers-reload" || t.Option == "touch-chain-reload"
}
