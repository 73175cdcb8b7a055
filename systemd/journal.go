package systemd

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"qwatch/internal/text"
)

const (
	// journalSocket is where journald takes entries (systemd.io,
	// JOURNAL_NATIVE_PROTOCOL).
	journalSocket = "/run/systemd/journal/socket"
	// maxValue and maxEntry bound a field's value and a whole entry, in bytes,
	// below the default size of a socket's send buffer (208 KiB): an entry
	// always fits into one datagram and needs no memfd.
	maxValue = 16 << 10
	maxEntry = 96 << 10
	// journalTimeout bounds the wait for a journald that does not read.
	journalTimeout = time.Second
)

// OnJournal tells whether f, say standard error, is the stream to the journal
// that JOURNAL_STREAM describes as DEVICE:INODE (systemd.exec(5)). The
// variable alone proves nothing: a shell in between may have redirected f.
func OnJournal(f *os.File, getenv func(string) string) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err == nil && getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// JournalWriter sends zerolog's JSON events to the journal as entries with
// fields:
//
//   - message, and error after a colon: MESSAGE
//   - level: PRIORITY
//   - event: QWATCH_EVENT, and its MessageID as MESSAGE_ID
//   - message_id: MESSAGE_ID
//   - any other, such as socket: QWATCH_SOCKET and so on
//
// An event that cannot be sent goes to the fallback as it is. Any number of
// goroutines may write.
type JournalWriter struct {
	fallback io.Writer
	addr     *net.UnixAddr

	mu   sync.Mutex
	conn *net.UnixConn // nil before the first entry and after an error
	buf  []byte
}

// NewJournalWriter makes a writer for the local journald. It connects when it
// is first used.
func NewJournalWriter(fallback io.Writer) *JournalWriter {
	return &JournalWriter{fallback: fallback, addr: &net.UnixAddr{Name: journalSocket, Net: "unixgram"}}
}

// Write takes one event. Its level is read from the event.
func (w *JournalWriter) Write(event []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry, err := appendEntry(w.buf[:0], event)
	if err == nil {
		w.buf = entry
		err = w.send(entry)
	}
	if err != nil {
		return w.fallback.Write(event)
	}
	return len(event), nil
}

// send does what journal.Send does, but never waits for ever, and needs no
// package-wide socket.
func (w *JournalWriter) send(entry []byte) error {
	if w.conn == nil {
		conn, err := net.DialUnix("unixgram", nil, w.addr)
		if err != nil {
			return err
		}
		w.conn = conn
	}
	err := w.conn.SetWriteDeadline(time.Now().Add(journalTimeout))
	if err == nil {
		_, err = w.conn.Write(entry)
	}
	if err != nil {
		w.conn.Close()
		w.conn = nil
	}
	return err
}

// appendEntry appends an event as an entry of the native protocol.
func appendEntry(dst, event []byte) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(event, &fields); err != nil {
		return dst, fmt.Errorf("read a log event: %w", err)
	}
	take := func(name string) string {
		defer delete(fields, name)
		return plain(fields[name])
	}
	level := take(zerolog.LevelFieldName)
	take(zerolog.TimestampFieldName) // journald has its own
	message, cause := take(zerolog.MessageFieldName), take(zerolog.ErrorFieldName)
	name, id := take("event"), take("message_id")

	if id == "" {
		id = MessageID(name)
	}
	if message == "" {
		message = name
	}
	if cause != "" {
		message = strings.TrimPrefix(message+": "+cause, ": ")
	}

	dst = appendField(dst, "MESSAGE", message)
	dst = appendField(dst, "PRIORITY", strconv.Itoa(int(priority(level))))
	dst = appendField(dst, "SYSLOG_IDENTIFIER", "qwatch")
	for _, f := range [][2]string{{"MESSAGE_ID", id}, {"QWATCH_EVENT", name}, {"QWATCH_ERROR", cause}} {
		if f[1] != "" {
			dst = appendField(dst, f[0], f[1])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := plain(fields[name])
		if len(dst)+len(name)+min(len(value), maxValue) > maxEntry {
			break
		}
		if value != "" {
			dst = appendField(dst, fieldName(name), value)
		}
	}
	return dst, nil
}

// plain is a string without its quotes, "" for null or nothing, and JSON for the
// rest.
// For a control character journalctl would show the whole field as
// "[N blob data]" (src/shared/logs-show.c, print_multiline).
func plain(raw json.RawMessage) string {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		s = string(raw)
	}
	return text.Lines(s)
}

// priority is the syslog level of a zerolog level. Nothing is above critical:
// journald shows emergencies to every user on every terminal.
func priority(level string) journal.Priority {
	switch level {
	case zerolog.LevelTraceValue, zerolog.LevelDebugValue:
		return journal.PriDebug
	case zerolog.LevelWarnValue:
		return journal.PriWarning
	case zerolog.LevelErrorValue:
		return journal.PriErr
	case zerolog.LevelFatalValue, zerolog.LevelPanicValue:
		return journal.PriCrit
	default:
		return journal.PriInfo
	}
}

// fieldName makes a journal field of a zerolog field: at most 64 characters of
// A-Z, 0-9 and _ (systemd, src/libsystemd/sd-journal/journal-file.c,
// journal_field_valid).
func fieldName(name string) string {
	name = "QWATCH_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
	return name[:min(len(name), 64)]
}

// appendField appends one field. A value with a newline has its length before
// it, so that nothing in it can pass for another field.
func appendField(dst []byte, name, value string) []byte {
	value = cut(value, maxValue)
	dst = append(dst, name...)
	if strings.Contains(value, "\n") {
		dst = append(dst, '\n')
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(value)))
	} else {
		dst = append(dst, '=')
	}
	dst = append(dst, value...)
	return append(dst, '\n')
}
