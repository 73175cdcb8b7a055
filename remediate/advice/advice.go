// Package advice holds the sentences that tell an administrator what to do, a
// function each: what they say, and in which file's syntax, is written here
// alone. They begin small and have no full stop, so that they can follow others.
package advice

import (
	"fmt"
	"path/filepath"
	"strings"

	"qwatch/remediate/facts"
)

// BuysSeconds is what a longer queue is good for.
const BuysSeconds = "a longer queue buys seconds, not capacity"

// SetListen says how to give uWSGI the listen n, as the line that the file at
// ConfiguredAt would have.
func SetListen(s facts.Socket, n int) string {
	file, _, _ := strings.Cut(s.ConfiguredAt, ":")
	line := fmt.Sprintf("listen = %d", n)
	switch filepath.Ext(file) {
	case ".yaml", ".yml":
		line = fmt.Sprintf("listen: %d", n)
	case ".json", ".js":
		line = fmt.Sprintf(`"listen": %d`, n)
	case ".xml":
		line = fmt.Sprintf("<listen>%d</listen>", n)
	}
	switch {
	case s.Configured == 0 || s.ConfiguredAt == "" || s.ConfiguredAt == "default":
		return fmt.Sprintf("set `%s` in uWSGI's configuration", line)
	case s.ConfiguredAt == "command line":
		return fmt.Sprintf("start uWSGI with `--listen %d` (now %d)", n, s.Configured)
	case strings.HasPrefix(s.ConfiguredAt, "environment"):
		return fmt.Sprintf("set `UWSGI_LISTEN=%d` in uWSGI's environment (now %d)", n, s.Configured)
	}
	return fmt.Sprintf("set `%s` in %s (now %d)", line, s.ConfiguredAt, s.Configured)
}

// Harakiri says how uWSGI replaces workers that are stuck.
func Harakiri(facts.Socket) string {
	return "set harakiri = 30 (seconds) in uWSGI's configuration, so that stuck workers are replaced"
}

// MoreWorkers says what helps where a longer queue does not, to a uWSGI of n
// workers.
func MoreWorkers(n int) string {
	return fmt.Sprintf("give uWSGI more workers (processes) than its %d, or make the requests shorter", n)
}
