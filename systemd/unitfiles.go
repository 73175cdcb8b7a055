package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// unitDirs are where units stand, the first wins (systemd.unit(5)).
var unitDirs = []string{"etc/systemd/system", "run/systemd/system", "run/systemd/generator", "usr/lib/systemd/system", "lib/systemd/system"}

// What is read of unit files at most.
const (
	maxUnitFile  = 64 << 10
	maxUnitFiles = 4096
)

// socketFiles lists the socket units that hand their sockets to a service, as
// their files say. That serves where systemd cannot be asked: before dbus 1.15 the
// bus refuses a user that exists only while its service runs (DynamicUser=),
// since it may not look it up. The files may have changed since systemd read
// them, so a socket counts only where the kernel shows that systemd made it.
// Units with specifiers are left out. root is that of the file system.
func socketFiles(root fs.FS, service string) (units []SocketUnit, err error) {
	seen := map[string]bool{}
	for _, dir := range unitDirs {
		entries, err := fs.ReadDir(root, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the .socket units of %s: %w", service, err)
		}
		for _, e := range entries {
			name := e.Name()
			if !strings.HasSuffix(name, ".socket") || seen[name] {
				continue
			}
			if seen[name] = true; len(seen) > maxUnitFiles {
				return nil, fmt.Errorf("the .socket units of %s: more than %d files", service, maxUnitFiles)
			}
			u := socketFile{SocketUnit: SocketUnit{Unit: name}, service: strings.TrimSuffix(name, ".socket") + ".service"}
			if err := u.read(root, path.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("the .socket units of %s: %w", service, err)
			}
			if u.service == service && !u.accept && len(u.Listen) > 0 {
				units = append(units, u.SocketUnit)
			}
		}
	}
	return units, nil
}

// socketFile is a socket unit as far as its files were read.
type socketFile struct {
	SocketUnit
	service string
	accept  bool
}

// read reads a unit's file and its drop-ins, by name and of whatever directory.
func (u *socketFile) read(root fs.FS, file string) error {
	files := []string{file}
	dropIns := map[string]string{}
	for _, dir := range slices.Backward(unitDirs) {
		dir = path.Join(dir, u.Unit+".d")
		entries, _ := fs.ReadDir(root, dir) // most units have none
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".conf") {
				dropIns[e.Name()] = path.Join(dir, e.Name())
			}
		}
	}
	names := make([]string, 0, len(dropIns))
	for name := range dropIns {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		files = append(files, dropIns[name])
	}
	for _, file := range files {
		text, err := readUnit(root, file)
		if err != nil {
			return err
		}
		u.parse(text)
	}
	return nil
}

func readUnit(root fs.FS, file string) (string, error) {
	info, err := fs.Stat(root, file)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a link to nowhere
		return "", nil
	case err != nil:
		return "", err
	case !info.Mode().IsRegular(): // /dev/null: masked
		return "", nil
	}
	text, err := fs.ReadFile(root, file)
	return string(text), err
}

// parse takes over what a file sets; an empty ListenStream= takes back all before.
func (u *socketFile) parse(text string) {
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		key, value, ok := strings.Cut(line, "=")
		if key, value = strings.TrimSpace(key), strings.TrimSpace(value); !ok || section != "[Socket]" {
			continue
		}
		switch key {
		case "ListenStream":
			switch _, err := strconv.ParseUint(value, 10, 16); {
			case value == "":
				u.Listen = nil
			case strings.Contains(value, "%"):
			case err == nil: // a port of all addresses
				u.Listen = append(u.Listen, "[::]:"+value)
			default:
				u.Listen = append(u.Listen, value)
			}
		case "Service":
			u.service = value
		case "Accept":
			u.accept = slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(value))
		case "Backlog":
			n, _ := strconv.ParseUint(value, 10, 32)
			u.Backlog = uint32(n)
		}
	}
}
