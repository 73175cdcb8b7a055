package systemd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

func TestOnJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
		fmt.Sprintf("%d:%d", st.Dev+1, st.Ino): false,
		fmt.Sprintf("%d:%dx", st.Dev, st.Ino):  false,
		fmt.Sprintf("%d", st.Ino):              false,
		"":                                     false,
	} {
		if got := OnJournal(w, getenv("JOURNAL_STREAM", stream)); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v, want %v", stream, got, want)
		}
	}
}

// parseEntry reads the native protocol, strictly.
func parseEntry(entry []byte) (map[string]string, error) {
	name := regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)
	fields := make(map[string]string)
	for len(entry) > 0 {
		line, rest, ok := bytes.Cut(entry, []byte{'\n'})
		if !ok {
			return nil, errors.New("no newline at the end")
		}
		key, value, ok := bytes.Cut(line, []byte{'='})
		if !ok {
			if len(rest) < 9 {
				return nil, errors.New("no length")
			}
			n := binary.LittleEndian.Uint64(rest)
			if uint64(len(rest)) < 8+n+1 || rest[8+n] != '\n' {
				return nil, fmt.Errorf("bad length %d", n)
			}
			value, rest = rest[8:8+n], rest[8+n+1:]
		}
		if !name.Match(key) {
			return nil, fmt.Errorf("bad field name %q", key)
		}
		fields[string(key)] += string(value)
		entry = rest
	}
	return fields, nil
}

func TestJournalEntry(t *testing.T) {
	tests := []struct {
		name string
		log  func(zerolog.Logger)
		want map[string]string
	}{
		{
			name: "raise",
			log: func(l zerolog.Logger) {
				l.Info().Str("event", EventRaiseApplied).Str("socket", "127.0.0.1:5000").Str("incident", "i1").Str("plan", "p1").
					Str("action", "relisten").Int("from", 128).Int("to", 1024).Bool("dry_run", false).Msg("raised")
			},
			want: map[string]string{
				"MESSAGE": "raised", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "qwatch",
				"MESSAGE_ID": "3498132a1f254f949ac5a08636a5648f", "QWATCH_EVENT": "raise-applied",
				"QWATCH_SOCKET": "127.0.0.1:5000", "QWATCH_INCIDENT": "i1", "QWATCH_PLAN": "p1", "QWATCH_ACTION": "relisten",
				"QWATCH_FROM": "128", "QWATCH_TO": "1024", "QWATCH_DRY_RUN": "false",
			},
		},
		{
			name: "error",
			log:  func(l zerolog.Logger) { l.Error().Err(errors.New("boom")).Msg("read") },
			want: map[string]string{"MESSAGE": "read: boom", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "qwatch", "QWATCH_ERROR": "boom"},
		},
		{
			name: "foreign text cannot make fields",
			log: func(l zerolog.Logger) {
				l.Warn().Str("socket", "a\nMESSAGE_ID=x\u202e").Str("bad name=\n", "1").Strs("list", []string{"\u202e"}).Msg("line\nPRIORITY=0\x1b[2J\u202e")
			},
			want: map[string]string{
				"MESSAGE": "line\nPRIORITY=0\uFFFD[2J\uFFFD", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "qwatch",
				"QWATCH_SOCKET": "a\nMESSAGE_ID=x\uFFFD", "QWATCH_BAD_NAME__": "1", "QWATCH_LIST": "[\"\uFFFD\"]",
			},
		},
		{
			name: "no words",
			log: func(l zerolog.Logger) {
				l.Log().Timestamp().Str("event", EventGaveUp).Str("none", "").Interface("null", nil).Send()
			},
			want: map[string]string{
				"MESSAGE": "gave-up", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "qwatch",
				"MESSAGE_ID": "0df4aef04298454a8c090b28c60d7bbc", "QWATCH_EVENT": "gave-up",
			},
		},
		{
			name: "another id, nested values",
			log: func(l zerolog.Logger) {
				l.Debug().Str("event", "own").Str("message_id", "00000000000000000000000000000001").Ints("sizes", []int{1, 2}).Msg("m")
			},
			want: map[string]string{
				"MESSAGE": "m", "PRIORITY": "7", "SYSLOG_IDENTIFIER": "qwatch", "MESSAGE_ID": "00000000000000000000000000000001",
				"QWATCH_EVENT": "own", "QWATCH_SIZES": "[1,2]",
			},
		},
		{
			name: "long",
			log:  func(l zerolog.Logger) { l.Info().Msg(strings.Repeat("é", maxValue)) },
			want: map[string]string{"MESSAGE": strings.Repeat("é", maxValue/2), "PRIORITY": "6", "SYSLOG_IDENTIFIER": "qwatch"},
		},
	}
	path := filepath.Join(t.TempDir(), "socket")
	next := listen(t, path)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var fallback bytes.Buffer
			w := NewJournalWriter(&fallback)
			w.addr.Name = path
			tt.log(zerolog.New(w))
			if fallback.Len() > 0 {
				t.Fatalf("not sent: %s", &fallback)
			}
			got, err := parseEntry([]byte(next()))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJournalWriterFallsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	var fallback bytes.Buffer
	w := NewJournalWriter(&fallback)
	w.addr.Name = path
	l := zerolog.New(w)

	l.Info().Msg("no journald")
	next := listen(t, path)
	l.Info().Msg("sent")
	if got := next(); !strings.HasPrefix(got, "MESSAGE=sent\n") {
		t.Errorf("entry %q", got)
	}
	if _, err := w.Write([]byte("no JSON")); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(`{"level":"info","message":"no journald"}`+"\nno JSON", fallback.String()); diff != "" {
		t.Errorf("fallback (-want +got):\n%s", diff)
	}
}

// A journald that does not read holds nobody up for long.
func TestJournalWriterDoesNotHang(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var fallback bytes.Buffer
	w := NewJournalWriter(&fallback)
	w.addr.Name = path
	l := zerolog.New(w)
	for i := 0; fallback.Len() == 0; i++ {
		if i == 1_000_000 {
			t.Fatal("the socket's queue has no end")
		}
		l.Info().Msg("x")
	}
}

func FuzzAppendEntry(f *testing.F) {
	f.Add([]byte(`{"level":"warn","event":"gave-up","message":"a\nb","socket":"\u0000","error":null,"x":{"y":[1]}}`))
	f.Add([]byte(`{"":1,"_":"=","MESSAGE":"x","message":["a"],"level":7}`))
	f.Fuzz(func(t *testing.T, event []byte) {
		entry, err := appendEntry(nil, event)
		if err != nil {
			if json.Valid(event) && bytes.HasPrefix(event, []byte("{")) {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		if len(entry) > maxEntry+maxValue {
			t.Fatalf("%d bytes", len(entry))
		}
		fields, err := parseEntry(entry)
		if err != nil {
			t.Fatalf("%v in %q", err, entry)
		}
		if _, ok := fields["MESSAGE"]; !ok || len(fields["PRIORITY"]) != 1 || fields["SYSLOG_IDENTIFIER"] != "qwatch" {
			t.Fatalf("fields %q", fields)
		}
	})
}

// catalog reads qwatch.catalog: the text of each id, with the comment above it.
func catalog(t *testing.T) (texts map[string]string, names map[string]string) {
	t.Helper()
	b, err := os.ReadFile("qwatch.catalog")
	if err != nil {
		t.Fatal(err)
	}
	texts, names = make(map[string]string), make(map[string]string)
	var comment, id string
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.HasPrefix(line, "#"):
			comment = strings.TrimSpace(line[1:])
		case strings.HasPrefix(line, "-- "):
			id = strings.TrimSpace(line[3:])
			if _, twice := texts[id]; twice {
				t.Errorf("%s is there twice", id)
			}
			names[id] = comment
			texts[id] = ""
		case id != "":
			texts[id] += line
		}
	}
	return texts, names
}

func TestCatalog(t *testing.T) {
	texts, names := catalog(t)
	want := make(map[string]string)
	for name, id := range messageIDs {
		want[id] = name
		if MessageID(name) != id {
			t.Errorf("MessageID(%q) = %q", name, MessageID(name))
		}
	}
	if len(want) != len(messageIDs) {
		t.Error("an id is there twice")
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("id and name (-want +got):\n%s", diff)
	}
	form := regexp.MustCompile(`^Subject: [^\n]{10,80}\nDefined-By: qwatch\nDocumentation: man:qwatch\(1\)[^\n]*\n\n[^\n]`)
	variable := regexp.MustCompile(`@[^@\n]*@`)
	known := regexp.MustCompile(`^@QWATCH_(SOCKET|INCIDENT|PLAN|ACTION|FROM|TO)@$`)
	id := regexp.MustCompile(`^[0-9a-f]{32}$`)
	for i, text := range texts {
		if !id.MatchString(i) {
			t.Errorf("id %q", i)
		}
		if !form.MatchString(text) {
			t.Errorf("%s: not of the form of a catalog entry:\n%s", names[i], text)
		}
		for _, v := range variable.FindAllString(text, -1) {
			if !known.MatchString(v) {
				t.Errorf("%s: field %s", names[i], v)
			}
		}
	}
	if got := MessageID("own"); got != "" {
		t.Errorf("MessageID(own) = %q", got)
	}
}
