package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"qwatch/internal/testbed"
)

// fakeSystemd is a systemd on a bus of the test's own, with one job.
type fakeSystemd struct {
	asked atomic.Int32
	ended atomic.Bool
}

const fakeJob = "/org/freedesktop/systemd1/job/7"

// StartUnit queues the job.
func (f *fakeSystemd) StartUnit(unit, mode string) (godbus.ObjectPath, *godbus.Error) {
	return fakeJob, nil
}

// GetAll is the unit.
func (f *fakeSystemd) GetAll(string) (map[string]godbus.Variant, *godbus.Error) {
	f.asked.Add(1)
	type jobOf struct {
		ID   uint32
		Path godbus.ObjectPath
	}
	job, state := jobOf{7, fakeJob}, "activating"
	if f.ended.Load() {
		job, state = jobOf{0, "/"}, "active"
	}
	return map[string]godbus.Variant{
		"LoadState": godbus.MakeVariant("loaded"), "ActiveState": godbus.MakeVariant(state),
		"Job": godbus.MakeVariant(job),
	}, nil
}

// ownBus runs a bus and returns how to connect to it.
func ownBus(t *testing.T) func() (*godbus.Conn, error) {
	dir := t.TempDir()
	socket, config := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	const text = `<busconfig><type>session</type><listen>unix:path=%s</listen><policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`
	if err := os.WriteFile(config, fmt.Appendf(nil, text, socket), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dbus-daemon", "--nofork", "--config-file="+config)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	err := testbed.Until(t.Context(), 20*time.Second, "the bus is there", func() bool { _, err := os.Stat(socket); return err == nil })
	if err != nil {
		t.Fatal(err)
	}
	return func() (*godbus.Conn, error) { return godbus.Connect("unix:path=" + socket) }
}

// Any user of the bus may say that a job was done; a start ends when systemd,
// asked, has it no more.
func TestForgedJobRemoved(t *testing.T) {
	testbed.Needs(t, "dbus-daemon")
	connect := ownBus(t)
	systemd, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	var fake fakeSystemd
	const path, manager = "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
	systemd.Export(&fake, path, manager)
	systemd.Export(&fake, path+"/unit/a_2eservice", "org.freedesktop.DBus.Properties")
	if _, err := systemd.RequestName("org.freedesktop.systemd1", 0); err != nil {
		t.Fatal(err)
	}
	m := &Manager{dial: func(context.Context) (*dbus.Conn, error) { return dbus.NewConnection(connect) }}
	defer m.Close()
	stranger, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()

	started := make(chan error, 1)
	go func() { started <- m.Start(t.Context(), "a.service") }()
	asked := func(times int32) {
		t.Helper()
		until := fake.asked.Load() + times
		if err := testbed.Until(t.Context(), 20*time.Second, "the unit is asked", func() bool { return fake.asked.Load() >= until || len(started) > 0 }); err != nil {
			t.Fatal(err)
		}
	}
	asked(1)
	for id := range uint32(10) {
		job := godbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", id))
		if err := stranger.Emit(path, manager+".JobRemoved", id, job, "a.service", "done"); err != nil {
			t.Fatal(err)
		}
	}
	asked(3) // and again, after the signals
	select {
	case err := <-started:
		t.Fatalf("the start has ended before its job: %v", err)
	default:
	}
	fake.ended.Store(true)
	if err := <-started; err != nil {
		t.Error(err)
	}
}
