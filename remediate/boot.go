package remediate

import (
	"fmt"
	"maps"
	"slices"

	"qwatch/remediate/facts"
)

// BootLoss is a setting in qwatch's own sysctl.d file that the next boot would
// not bring: another file is read later and sets less.
type BootLoss struct {
	Key    string
	Ours   int
	File   string // qwatch's
	Winner facts.BootValue
	Better string // a name for qwatch's file that would win
}

func (l BootLoss) String() string {
	return fmt.Sprintf("a reboot would set %s to %d, not to %d: %s:%d is read after %s; change that line, or set policy.sysctl.file = %q",
		l.Key, l.Winner.Value, l.Ours, l.Winner.File, l.Winner.Line, l.File, l.Better)
}

// BootLosses returns the settings of qwatch's file that would lose at the next
// boot, by key.
func BootLosses(p Policy, f facts.Snapshot) []BootLoss {
	var losses []BootLoss
	for _, key := range slices.Sorted(maps.Keys(f.File)) {
		if winner, ok := f.Boot[key]; ok && winner.Value < f.File[key] && winner.File != p.SysctlFile {
			losses = append(losses, BootLoss{key, f.File[key], p.SysctlFile, winner, f.WinningFile})
		}
	}
	return losses
}
