package sysctld

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Reader is a program that applies the sysctl.d files at boot. The two differ
// in what they read last.
type Reader int

const (
	// Systemd is systemd-sysctl.service: the sysctl.d directories only.
	// Debian links 99-sysctl.conf there to /etc/sysctl.conf.
	Systemd Reader = iota
	// Procps is "sysctl --system": the same directories, then /etc/sysctl.conf.
	Procps
)

// dirs in their order of precedence: of two files with one name, that in the
// earlier directory hides the other.
var dirs = [...]string{"etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d"}

const sysctlConf = "/etc/sysctl.conf"

// Setting is a Line and the file in which it stands.
type Setting struct {
	Line
	File string // absolute
}

// Boot holds all settings that a boot would read, in the order of reading: those
// of /etc/sysctl.conf last.
type Boot struct{ settings []Setting }

// Load reads the files that count at boot from the file system's root
// (as bounded.FS). A file that could not be read is left out and named in the
// error; the Boot is good for the rest.
func Load(root fs.FS) (Boot, error) {
	var b Boot
	var failed []error
	found := map[string]string{} // name → path
	for _, dir := range dirs {
		entries, err := fs.ReadDir(root, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("read /%s: %w", dir, err))
		}
		for _, e := range entries {
			name := e.Name()
			// A dot file is hidden (conf_files_list of systemd).
			if name[0] == '.' || !strings.HasSuffix(name, ".conf") || found[name] != "" {
				continue
			}
			// Whatever has the name hides the files of that name in later
			// directories: an empty file, a link to /dev/null or to nowhere.
			found[name] = path.Join(dir, name)
		}
	}
	var files []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		files = append(files, found[name])
	}
	for _, file := range append(files, sysctlConf[1:]) {
		settings, err := load(root, file)
		failed = append(failed, err)
		b.settings = append(b.settings, settings...)
	}
	return b, errors.Join(failed...)
}

// load reads one file. One that is not there sets nothing, nor does what is no
// regular file: /dev/null, or a FIFO, which would block.
func load(root fs.FS, file string) ([]Setting, error) {
	info, err := fs.Stat(root, file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil, nil
	}
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", file, err)
	}
	var settings []Setting
	for _, l := range Parse(text) {
		settings = append(settings, Setting{Line: l, File: "/" + file})
	}
	return settings, nil
}

// Winner is the setting that key gets at boot from the reader r, false where
// no file sets it. A line that names the key wins over every glob; of several
// the last wins.
func (b Boot) Winner(r Reader, key string) (Setting, bool) {
	key = Path(key)
	var named, glob Setting
	excluded := false
	for _, s := range b.settings {
		switch {
		case r == Systemd && s.File == sysctlConf:
		case s.Key == key && s.Exclude:
			excluded = true
			if r == Systemd { // option_new() replaces the assignment; procps keeps it
				named = Setting{}
			}
		case s.Key == key:
			named = s
			excluded = false
		case isGlob(s.Key) && !s.Exclude && match(s.Key, key):
			glob = s
		}
	}
	if named.File == "" && !excluded {
		named = glob
	}
	return named, named.File != ""
}

// WinningName is a name for qwatch's own file in /etc/sysctl.d that is read
// after every file there that sets one of keys by name: name itself if that
// will do. /etc/sysctl.conf as procps reads it cannot be beaten by a name.
func (b Boot) WinningName(name string, keys ...string) string {
	last := ""
	for _, s := range b.settings {
		base := path.Base(s.File)
		set := slices.ContainsFunc(keys, func(k string) bool { return s.Key == Path(k) })
		if set && base != name && s.File != sysctlConf {
			last = max(last, base)
		}
	}
	for _, n := range []string{name, "99-qwatch.conf", "99-zz-qwatch.conf", "zz-qwatch.conf"} {
		if n > last {
			return n
		}
	}
	// "_" sorts behind the "." of ".conf".
	return strings.TrimSuffix(last, ".conf") + "_qwatch.conf"
}

// match is glob(3) on the paths below /proc/sys.
func match(pattern, key string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "[!", "[^"), key)
	return ok && err == nil
}
