package kernel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cmdline")
	for _, c := range []struct {
		name string
		text []byte
		want []string
		err  error
	}{
		{"empty", nil, nil, nil},
		{"arguments", []byte("uwsgi\x00--ini\x00\x00app.ini\x00"), []string{"uwsgi", "--ini", "", "app.ini"}, nil},
		{"without the last NUL", []byte("uwsgi master"), []string{"uwsgi master"}, nil},
		{"as long as is read", append(bytes.Repeat([]byte("x"), maxList-1), 0), []string{string(bytes.Repeat([]byte("x"), maxList-1))}, nil},
		{"longer", bytes.Repeat([]byte("x"), maxList+1), nil, ErrCut},
	} {
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := list(path)
		if !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: got %.40q, %v", c.name, got, err)
		}
	}
	if args, err := Args(os.Getpid()); err != nil || !slices.Equal(args, os.Args) {
		t.Errorf("own arguments: %q, %v, want %q", args, err, os.Args)
	}
}

func TestField(t *testing.T) {
	const text = "Name:\tuwsgi\nSigCgt:\t01\nSigCgtX:\t02\n"
	for name, want := range map[string]string{"Name": "uwsgi", "SigCgt": "01", "Sig": "", "SigCgtX": "02"} {
		got, err := field([]byte(text), name)
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}
