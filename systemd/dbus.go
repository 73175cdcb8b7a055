package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
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
		return nil, fmt.Errorf("%w: %w", ErrNoManager, err)
	}
	m.conn = conn
	return conn, nil
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

// CanReload tells whether systemd can reload the unit: it has ExecReload= or
// is of Type=notify-reload.
func (m *Manager) CanReload(ctx context.Context, unit string) (bool, error) {
	p, err := m.properties(ctx, unit)
	if err != nil {
		return false, err
	}
	can, _ := p["CanReload"].(bool)
	return can, nil
}

// Reload reloads a unit, as systemctl reload does, and waits until systemd
// says that this is done. With Type=notify-reload that means that the service
// has reloaded, otherwise that the ExecReload= command has ended.
func (m *Manager) Reload(ctx context.Context, unit string) error {
	return m.job(ctx, "reload", unit, (*dbus.Conn).ReloadUnitContext)
}

// Start starts a unit and waits until it is up.
func (m *Manager) Start(ctx context.Context, unit string) error {
	return m.job(ctx, "start", unit, (*dbus.Conn).StartUnitContext)
}

// job queues a job and waits for its result until ctx ends. The job itself is
// not taken back then.
func (m *Manager) job(ctx context.Context, verb, unit string, queue func(*dbus.Conn, context.Context, string, string, chan<- string) (int, error)) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	result := make(chan string, 1) // room for a result that comes after ctx has ended
	call, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	// "replace" is what systemctl does with other jobs of the unit that wait.
	if _, err := queue(conn, call, unit, "replace", result); err != nil {
		return fmt.Errorf("%s unit %s: %w", verb, unit, err)
	}
	// A bus that goes away in between takes the result with it.
	lost := time.NewTicker(time.Second)
	defer lost.Stop()
	for {
		select {
		case r := <-result:
			if r == "done" {
				return nil
			}
			return fmt.Errorf("%s unit %s: %s; see systemctl status %s", verb, unit, jobResult(r), unit)
		case <-lost.C:
			if !conn.Connected() {
				return fmt.Errorf("%s unit %s: %w: the connection was lost before the result came", verb, unit, ErrNoManager)
			}
		case <-ctx.Done():
			return fmt.Errorf("%s unit %s: systemd has not finished it in time: %w", verb, unit, context.Cause(ctx))
		}
	}
}

// jobResult explains a result of JobRemoved (org.freedesktop.systemd1(5)).
func jobResult(r string) string {
	switch r {
	case "canceled":
		return "canceled, another job took its place"
	case "timeout":
		return "it took longer than the unit allows"
	case "failed":
		return "its command failed"
	case "dependency":
		return "a unit that it needs failed"
	case "skipped":
		return "skipped, the unit is not in a state for it"
	}
	return "systemd says " + r
}

// Service is how a service is started, and how it fares.
type Service struct {
	Active  string   // ActiveState: active, activating, failed, inactive, ...
	Args    []string // argv of the first ExecStart=
	Environ []string // Environment=, without that of EnvironmentFile=
	Dir     string   // WorkingDirectory=, "" for the root
	User    string   // User=, "" for root
	Group   string   // Group=, "" for the user's
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
	var s Service
	s.Active, _ = p["ActiveState"].(string)
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
// an error the list is not whole.
func (m *Manager) SocketUnits(ctx context.Context, service string) ([]SocketUnit, error) {
	p, err := m.properties(ctx, service)
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
