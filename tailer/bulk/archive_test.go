package bulk

import (
	"bytes"
	"compress/bzip2"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Written by bzip2 1.0.8: record(0), a newline, "nothing" and a newline; then
// the same of nothing at all.
const (
	bzip2Record = "QlpoOTFBWSZTWXWLITYAACVfgAAQcHP/8AChCIAP7a8AIABqIiaeiBoyaDJoDQGhTKbSaAAA0MgZNNUQ9Oiehiixb2d/BoV1Au8pHtEAMR4hmloLY504jIE2pxBRlkAH6RTu1knLYPzFrxRcpaXduAlGY+iBS/CYkimU0VMH8XckU4UJB1iyE2A="
	bzip2Empty  = "QlpoORdyRThQkAAAAAA="
)

func unbase64(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packers pack a text, which for bzip2 is given.
func packers(t *testing.T) map[string]func(text string) []byte {
	with := func(open func(io.Writer) (io.WriteCloser, error)) func(string) []byte {
		return func(text string) []byte {
			var b bytes.Buffer
			w, err := open(&b)
			if err == nil {
				_, err = io.WriteString(w, text)
			}
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}
	}
	return map[string]func(string) []byte{
		"gzip": with(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zstd": with(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz":   with(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		"bzip2": func(text string) []byte {
			if text == "" {
				return unbase64(t, bzip2Empty)
			}
			return unbase64(t, bzip2Record)
		},
	}
}

func TestReadArchive(t *testing.T) {
	text := record(0) + "\nnothing\n"
	for name, pack := range packers(t) {
		one := pack(text)
		for _, test := range []struct {
			name   string
			packed []byte
			want   Totals
			hits   int
		}{
			{"one", one, Totals{Files: 1, Bytes: int64(len(text)), Lines: 2}, 1},
			{"two behind each other", append(one[:len(one):len(one)], one...), Totals{Files: 1, Bytes: 2 * int64(len(text)), Lines: 4}, 2},
			{"of nothing", pack(""), Totals{Files: 1}, 0},
		} {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				for _, path := range []string{Stdin, write(t, string(test.packed))} {
					got, totals := read(t, Options{}, path, bytes.NewReader(test.packed))
					want := make([]string, test.hits)
					for i := range want {
						want[i] = record(0)
					}
					if diff := cmp.Diff(want, append([]string{}, got...)); diff != "" {
						t.Errorf("candidates (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(test.want, totals); diff != "" {
						t.Errorf("totals (-want +got):\n%s", diff)
					}
				}
			})
		}
	}
}

// TestReadCutArchive takes an archive's second half away: what the first holds
// counts.
func TestReadCutArchive(t *testing.T) {
	var text strings.Builder
	for i := range 200_000 { // several blocks of each packer
		fmt.Fprintf(&text, "%d %x\n", i, i*i*i)
		if i%1000 == 0 {
			text.WriteString(record(i) + "\n")
		}
	}
	all, _ := naive(text.String(), literal)
	for name, pack := range packers(t) {
		t.Run(name, func(t *testing.T) {
			packed := pack(text.String())
			packed = packed[:len(packed)/2]
			got, totals := read(t, Options{}, write(t, string(packed)), nil)
			if len(totals.Unreadable) != 1 || !strings.HasPrefix(totals.Unreadable[0].Err.Error(), "the archive is cut short or damaged: ") {
				t.Fatalf("unreadable: %v, want the archive", totals.Unreadable)
			}
			if name == "bzip2" {
				if !errors.Is(totals.Unreadable[0].Err, io.ErrUnexpectedEOF) {
					t.Errorf("error %v, want an unexpected end", totals.Unreadable[0].Err)
				}
				return // one block, of which a half is nothing
			}
			if len(got) < 40 || len(got) > 160 || !cmp.Equal(all[:len(got)], got) {
				t.Errorf("%d candidates, want about the first 100 of 200", len(got))
			}
			if totals.Bytes == 0 || totals.Lines == 0 {
				t.Errorf("totals: %+v, want the half", totals)
			}
		})
	}
}

func TestReadDamagedArchive(t *testing.T) {
	for name, pack := range packers(t) {
		t.Run(name, func(t *testing.T) {
			packed := pack(record(0) + "\nnothing\n")
			packed[len(packed)-len(packed)/3] ^= 0x55
			_, totals := read(t, Options{}, write(t, string(packed)), nil)
			if len(totals.Unreadable) != 1 {
				t.Errorf("unreadable: %v, want the archive", totals.Unreadable)
			}
			var structural bzip2.StructuralError
			if name == "bzip2" && !errors.As(totals.Unreadable[0].Err, &structural) {
				t.Errorf("error %v, want bzip2's own", totals.Unreadable[0].Err)
			}
		})
	}
}

func TestUnpackerLeavesText(t *testing.T) {
	for _, text := range []string{"", "B", "BZh9 is how bzip2 begins", "\x1f\x8b", "7zXZ", record(1)} {
		if unpacker([]byte(text)) != nil {
			t.Errorf("%q is taken for an archive", text)
		}
	}
}
