package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sys/unix"

	"qwatch/internal/bounded"
	"qwatch/internal/config"
	"qwatch/internal/text"
	"qwatch/remediate"
)

// doctorReport is what doctor prints.
type doctorReport struct {
	remediate.Report
	// Unreadable are the log files that this user may not read.
	Unreadable []string `json:"unreadable"`
	// Audit is what qwatch-audit.service would see, nil where that is the same.
	Audit *auditView `json:"audit,omitempty"`
}

// auditView is a host through the eyes of the audit service: a user of its own
// in the groups adm and systemd-journal, without a capability.
type auditView struct {
	Sees       []string `json:"sees"`
	Misses     []string `json:"misses"` // with the reason
	Unreadable []string `json:"unreadable"`
	Error      string   `json:"error,omitempty"` // why that is not known
}

const (
	auditWait = 20 * time.Second
	// Those that systemd gives to services with DynamicUser= (uid-gid.h).
	dynamicFirst, dynamicLast = 61184, 65519
	maxLogs                   = 4096
)

// lookAsAudit runs doctor as such a user, with these arguments and beside this
// one; the answer comes by a channel. It is nil for whoever has no more rights.
func lookAsAudit(ctx context.Context, config ...string) <-chan *doctorReport {
	answer := make(chan *doctorReport, 1)
	if os.Geteuid() != 0 {
		answer <- nil
		return answer
	}
	go func() {
		// The end of the thread that starts the other process kills that
		// (prctl(2), PR_SET_PDEATHSIG), and Go ends those that could not come back
		// from another network namespace.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ctx, cancel := context.WithTimeout(ctx, auditWait)
		defer cancel()
		var r doctorReport
		out, err := asAudit(ctx, append([]string{"doctor", "--json"}, config...)...)
		if err == nil {
			err = json.Unmarshal(out, &r)
		}
		if err != nil {
			r = doctorReport{Audit: &auditView{Error: err.Error()}}
		}
		answer <- &r
	}()
	return answer
}

// asAudit runs a qwatch command as the audit service's user, and gives what it
// prints. The change of the user takes all capabilities away (capabilities(7)).
func asAudit(ctx context.Context, args ...string) ([]byte, error) {
	uid := dynamicLast
	for ; uid > dynamicFirst; uid-- {
		if _, err := user.LookupId(strconv.Itoa(uid)); err != nil {
			break // nobody's
		}
	}
	credential := &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	for _, name := range []string{"adm", "systemd-journal"} {
		if g, err := user.LookupGroup(name); err == nil {
			if gid, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
				credential.Groups = append(credential.Groups, uint32(gid))
			}
		}
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = "qwatch"
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGKILL}
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if x := new(exec.ExitError); errors.As(err, &x) && x.ExitCode() == exitProblem {
		err = nil
	}
	if err != nil {
		if cmd.Process == nil { // it was not even started
			return nil, whyNotAs(credential, err)
		}
		said, _, _ := strings.Cut(words.String(), "\n") // the hint is for that command
		return nil, errors.New(cmp.Or(strings.TrimPrefix(said, "qwatch: error: "), err.Error()))
	}
	return out, nil
}

// whyNotAs adds to the error of starting a program as somebody else what would
// allow it.
func whyNotAs(who *syscall.Credential, err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EINVAL) { // setuid(2)
		return err
	}
	return fmt.Errorf("to become user %d with the groups %d: %w; needs CAP_SETUID and CAP_SETGID, in the host's user namespace", who.Uid, who.Groups, err)
}

// compare tells what of a report its own user sees and the audit service does
// not.
func compare(own remediate.Report, audit *doctorReport) *auditView {
	switch {
	case audit == nil:
		return nil
	case audit.Audit != nil: // it failed
		return audit.Audit
	}
	v := &auditView{Sees: []string{}, Misses: []string{}, Unreadable: audit.Unreadable}
	seen := map[string]bool{}
	for _, s := range audit.Sockets {
		seen[s.Socket] = true
	}
	for _, s := range own.Sockets {
		if seen[s.Socket] {
			v.Sees = append(v.Sees, s.Socket)
			continue
		}
		miss := s.Socket
		for _, why := range audit.Unseen {
			if reason, ok := strings.CutPrefix(why, "whose "+s.Socket+" is: "); ok {
				miss += ": " + reason
			}
		}
		v.Misses = append(v.Misses, miss)
	}
	return v
}

// String is a section of the report for people.
func (v *auditView) String() string {
	var b strings.Builder
	switch {
	case v.Error != "":
		fmt.Fprintf(&b, "\nwhat qwatch-audit.service would see could not be tried: %s\n", text.Line(v.Error))
		return b.String()
	case len(v.Misses) == 0:
		b.WriteString("\nqwatch-audit.service, without any right, would see all of these sockets\n")
	default:
		fmt.Fprintf(&b, "\nqwatch-audit.service, without any right, would see %d of these %d sockets\n", len(v.Sees), len(v.Sees)+len(v.Misses))
	}
	for _, m := range v.Misses {
		fmt.Fprintf(&b, "  not %s\n", text.Line(m))
	}
	for _, u := range v.Unreadable {
		fmt.Fprintf(&b, "  nor could it read %s\n", text.Line(u))
	}
	if len(v.Misses)+len(v.Unreadable) > 0 {
		b.WriteString("  → the drop-in audit-reads-all.conf lets it: see /usr/share/doc/qwatch/examples\n")
	}
	return b.String()
}

// unreadable lists the log files of the configuration that this process may not
// read. It opens none, and looks through no folder without an end.
func unreadable(cfg *config.Config) []string {
	list := []string{}
	for _, src := range cfg.Sources {
		for _, glob := range src.Files {
			answer := make(chan []string, 1)
			go func() { answer <- unreadableOf(glob) }()
			select {
			case found := <-answer:
				list = append(list, found...)
			case <-time.After(lookTime): // and it may never
				list = append(list, fmt.Sprintf("%s: its file system has not answered for %s", glob, lookTime))
			}
		}
	}
	return list
}

// lookTime is how long the folders of one glob may take.
const lookTime = 2 * time.Second

func unreadableOf(glob string) (list []string) {
	found, err := doublestar.Glob(bounded.FS{Entries: maxLogs}, strings.TrimPrefix(glob, "/"), doublestar.WithFailOnIOErrors())
	if err != nil {
		list = append(list, fmt.Sprintf("%s: %v", glob, err))
	}
	for _, path := range found[:min(len(found), maxLogs)] {
		path = "/" + path
		if err := unix.Access(path, unix.R_OK); errors.Is(err, fs.ErrPermission) {
			list = append(list, path)
		}
	}
	return list
}
