package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
)

const (
	// connectTimeout bounds the way to the bus, callTimeout one question.
	connectTimeout = 5 * time.Second
	callTimeout    = 10 * time.Second
)

// ErrNoManager says that there is no systemd that can be asked: a host without
// systemd, a container, or a sandbox that hides the bus.
var ErrNoManager = errors.New("systemd cannot be reached over D-Bus")

// Manager asks the system's service manager over D-Bus. It connects when it is
// first asked, and again after the bus was restarted. Any number of goroutines
// may use it.
type Manager struct {
	dial func(context.Context) (*dbus.Conn, error)

	mu   sync.Mutex
	conn *dbus.Conn // nil until the first question
}

// NewManager makes a Manager. Close it at the end.
func NewManager() *Manager { return &Manager{dial: dbus.NewWithContext} }

// Close ends the connection.
func (m *Manager) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
}

// connect gives a live connection, or an error that is ErrNoManager.
func (m *Manager) connect(ctx context.Context) (*dbus.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		if m.conn.Connected() {
			return m.conn, nil
		}
		m.conn.Close()
		m.conn = nil
	}
	// The connection lives as long as the context that it was made with, so
	// that one may end only while connecting.
	life, end := context.WithCancel(context.Background())
	dialing, stop := context.WithTimeout(ctx, connectTimeout)
	defer stop()
	keep := context.AfterFunc(dialing, end)
	conn, err := m.dial(life)
	if !keep() && err == nil { // it has ended in between
		conn.Close()
		err = dialing.Err()
	}
	if err != nil {
		end()
		return nil, whyNot(err)
	}
	m.conn = conn
	return conn, nil
}

// whyNot is why the bus could not be reached. One that hangs up while it is told
// who calls could not look that user up: of the calls that go-systemd makes on
// the way, whichever comes first fails, and each in its own words.
func whyNot(err error) error {
	for _, hungUp := range []error{io.EOF, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, hungUp) {
			return fmt.Errorf("%w: the bus hung up, as it does before dbus 1.15 on a user who exists only while a service runs (DynamicUser=)", ErrNoManager)
		}
	}
	return fmt.Errorf("%w: %w", ErrNoManager, err)
}

// ask reads the properties that a unit has as one of a kind: Unit, which all
// are, Service, Socket.
func (m *Manager) ask(ctx context.Context, unit, kind string) (map[string]any, error) {
	ctx, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	p, err := conn.GetUnitTypePropertiesContext(ctx, unit, kind)
	if err != nil {
		return nil, fmt.Errorf("ask systemd for unit %s: %w", unit, err)
	}
	return p, nil
}

// properties reads what each unit has. It must be known to systemd.
func (m *Manager) properties(ctx context.Context, unit string) (map[string]any, error) {
	p, err := m.ask(ctx, unit, "Unit")
	if err != nil {
		return nil, err
	}
	if state, _ := p["LoadState"].(string); state != "loaded" {
		return nil, fmt.Errorf("ask systemd for unit %s: it is %s; see systemctl status %s", unit, state, unit)
	}
	return p, nil
}

// Main returns the main process of a service, 0 for none, and whether systemd can
// reload it: it has ExecReload= or is of Type=notify-reload.
func (m *Manager) Main(ctx context.Context, unit string) (pid int, canReload bool, err error) {
	p, err := m.properties(ctx, unit)
	if err != nil {
		return 0, false, err
	}
	q, err := m.ask(ctx, unit, "Service")
	if err != nil {
		return 0, false, err
	}
	main, _ := q["MainPID"].(uint32)
	canReload, _ = p["CanReload"].(bool)
	return int(main), canReload, nil
}

// Reload reloads a unit, as systemctl reload does, and waits until systemd
// says that this is done. With Type=notify-reload that means that the service
// has reloaded, otherwise that the ExecReload= command has ended.
func (m *Manager) Reload(ctx context.Context, unit string) error {
	if _, err := m.job(ctx, "reload", unit, (*dbus.Conn).ReloadUnitContext); err != nil {
		return err
	}
	q, err := m.ask(ctx, unit, "Service")
	if err != nil {
		return fmt.Errorf("reload unit %s: its result: %w", unit, err)
	}
	// What else becomes of the unit is not the reload's doing: systemd sets this
	// anew at each (service_enter_reload, src/core/service.c).
	if result, _ := q["ReloadResult"].(string); result != "success" {
		return fmt.Errorf("reload unit %s: its reload ended with %q; see systemctl status %s", unit, result, unit)
	}
	return nil
}

// Start starts a unit and waits until it is up.
func (m *Manager) Start(ctx context.Context, unit string) error {
	p, err := m.job(ctx, "start", unit, (*dbus.Conn).StartUnitContext)
	if err != nil {
		return err
	}
	if active, _ := p["ActiveState"].(string); active != "active" {
		return fmt.Errorf("start unit %s: it is %s; see systemctl status %s", unit, active, unit)
	}
	return nil
}

// jobPace is how often it is asked whether a job has ended.
const jobPace = 100 * time.Millisecond

// job queues a job, and waits until the unit has no such job any more, or ctx
// ends; the job itself is not taken back then. It returns the unit's properties
// afterwards. The unit is asked, and no signal believed: any user of the bus can
// send one that says that a job was done (JobRemoved), and go-systemd does not
// look at who sent it.
func (m *Manager) job(ctx context.Context, verb, unit string, queue func(*dbus.Conn, context.Context, string, string, chan<- string) (int, error)) (map[string]any, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	call, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	// "replace" is what systemctl does with other jobs of the unit that wait.
	id, err := queue(conn, call, unit, "replace", nil)
	if err != nil {
		return nil, fmt.Errorf("%s unit %s: %w", verb, unit, err)
	}
	pace := time.NewTicker(jobPace)
	defer pace.Stop()
	for {
		p, err := m.properties(ctx, unit)
		if err != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("%s unit %s: the result could not be asked for: %w", verb, unit, err)
		}
		if err == nil && jobOf(p) != id {
			return p, nil
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s unit %s: systemd has not finished it in time: %w", verb, unit, context.Cause(ctx))
		}
	}
}

// jobOf is the number of a unit's job (org.freedesktop.systemd1(5), Job), 0 for
// none.
func jobOf(unit map[string]any) int {
	if job, _ := unit["Job"].([]any); len(job) > 0 {
		if id, ok := job[0].(uint32); ok {
			return int(id)
		}
	}
	return 0
}

// Service is how a service is started, and how it fares.
type Service struct {
	Active  string   // ActiveState: active, activating, failed, inactive, ...
	Sub     string   // SubState: running, auto-restart, failed, dead, ...
	Result  string   // why it is not up: success, exit-code, timeout, ...
	Status  int32    // the exit status, or the signal, of its main process
	Args    []string // argv of the first ExecStart=
	Environ []string // Environment=, without that of EnvironmentFile=
	Dir     string   // WorkingDirectory=, "" for the root
	User    string   // User=, "" for root
	Group   string   // Group=, "" for the user's
	UID     int      // who User= is, where systemd has looked it up as it started the service, else -1
}

// refusedStatus is that of a uWSGI which does not start: exit(1), as in
// create_server_socket (core/socket.c). One that was told to end has another.
const refusedStatus = 1

// Refused reports, as nil, that the service has failed by itself: its main
// process has refused to start, and nobody has stopped it since. Else it says how
// it fares. Once its start limit is hit, that may be the result.
func (s Service) Refused() error {
	down := s.Active == "failed" || s.Active == "activating" && strings.HasPrefix(s.Sub, "auto-restart")
	switch {
	case !down:
		return fmt.Errorf("it is %s (%s), and only what has failed is started", s.Active, s.Sub)
	case s.Result != "exit-code" && s.Result != "start-limit-hit" || s.Status != refusedStatus:
		return fmt.Errorf("it has failed with the result %s, status %d, and a uWSGI that refuses to start ends with exit-code, status %d", s.Result, s.Status, refusedStatus)
	}
	return nil
}

// Refused is Service.Refused of a unit as it is now.
func (m *Manager) Refused(ctx context.Context, unit string) error {
	s, err := m.Service(ctx, unit)
	if err != nil {
		return err
	}
	return s.Refused()
}

// Service asks for a service.
func (m *Manager) Service(ctx context.Context, unit string) (Service, error) {
	p, err := m.properties(ctx, unit)
	if err != nil {
		return Service{}, err
	}
	q, err := m.ask(ctx, unit, "Service")
	if err != nil {
		return Service{}, err
	}
	s := Service{UID: -1}
	if uid, ok := q["UID"].(uint32); ok && uid != math.MaxUint32 { // systemd's UID_INVALID
		s.UID = int(uid)
	}
	s.Active, _ = p["ActiveState"].(string)
	s.Sub, _ = p["SubState"].(string)
	s.Result, _ = q["Result"].(string)
	s.Status, _ = q["ExecMainStatus"].(int32)
	s.Environ, _ = q["Environment"].([]string)
	s.Dir, _ = q["WorkingDirectory"].(string)
	s.User, _ = q["User"].(string)
	s.Group, _ = q["Group"].(string)
	// a(sasbttttuii): path, argv and what became of it.
	if commands, _ := q["ExecStart"].([][]any); len(commands) > 0 && len(commands[0]) > 1 {
		s.Args, _ = commands[0][1].([]string)
	}
	return s, nil
}

// SocketUnit is a .socket unit that hands its listening sockets to a service.
type SocketUnit struct {
	Unit    string
	Listen  []string // addresses, as systemd writes them
	Backlog uint32   // Backlog=, what systemd asks listen(2) for
}

// SocketUnits lists the socket units that hand their sockets to a service. With
// an error the list is not whole. Where systemd cannot be reached those that its
// files name are better than none; that they name none proves nothing.
func (m *Manager) SocketUnits(ctx context.Context, service string) ([]SocketUnit, error) {
	p, err := m.properties(ctx, service)
	if errors.Is(err, ErrNoManager) {
		if units, _ := socketFiles(bounded.FS{Size: maxUnitFile, Entries: maxUnitFiles}, service); len(units) > 0 {
			return units, nil
		}
	}
	if err != nil {
		return nil, err
	}
	var units []SocketUnit
	triggers, _ := p["TriggeredBy"].([]string)
	for _, name := range triggers {
		if !strings.HasSuffix(name, ".socket") {
			continue // a timer or a path
		}
		u, err := m.socketUnit(ctx, name)
		if err != nil {
			return units, err
		}
		units = append(units, u)
	}
	return units, nil
}

func (m *Manager) socketUnit(ctx context.Context, name string) (SocketUnit, error) {
	p, err := m.ask(ctx, name, "Socket")
	if err != nil {
		return SocketUnit{}, err
	}
	u := SocketUnit{Unit: name}
	u.Backlog, _ = p["Backlog"].(uint32)
	listen, _ := p["Listen"].([][]any) // a(ss): kind, address
	for _, l := range listen {
		if len(l) == 2 {
			if address, ok := l[1].(string); ok {
				u.Listen = append(u.Listen, address)
			}
		}
	}
	return u, nil
}
