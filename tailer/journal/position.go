package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/renameio/v2"

	"qwatch/internal/bounded"
)

// position is how far the journal has been read, as it stands in the
// state file.
type position struct {
	// Cursor names the last entry that was read, "" if none was.
	Cursor string `json:"cursor"`
	// Time is when that entry was logged; without a cursor, from when on
	// entries are wanted.
	Time time.Time `json:"time,omitzero"`
	// Units are the patterns that were followed. With others, the entry at
	// the cursor need not be shown again, which then means nothing.
	Units []string `json:"units"`
}

// args tells journalctl where to begin. The entry at the cursor is asked for
// again (--cursor, not --after-cursor): seeing it proves that nothing between
// it and the next one has been vacuumed away, and sd_journal_seek_cursor goes
// to the nearest entry if it has.
func (p position) args() []string {
	switch {
	case p.Cursor != "":
		return []string{"--cursor=" + p.Cursor}
	case !p.Time.IsZero():
		usec := p.Time.UnixMicro()
		return []string{fmt.Sprintf("--since=@%d.%06d", usec/1e6, usec%1e6)}
	default:
		return nil
	}
}

// loadPosition reads the state file. A missing file is no error and
// gives no position.
func loadPosition(path string) (p position, found bool, err error) {
	b, err := bounded.ReadFile(path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("read the journal position: %w", err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return position{}, false, fmt.Errorf("read the journal position in %s: %w; the journal is followed from its end", path, err)
	}
	return p, true, nil
}

func (p position) save(path string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode the journal position: %w", err)
	}
	if err := renameio.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		// The temporary file's name would make every such error a new one.
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		}
		return fmt.Errorf("write the journal position to %s: %w", path, err)
	}
	return nil
}
