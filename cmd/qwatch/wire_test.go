package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"qwatch/internal/config"
)

func TestLogPrintsNoControlCharacters(t *testing.T) {
	for _, format := range []config.Format{config.FormatConsole, config.FormatJSON} {
		var out bytes.Buffer
		e := env{nil, nil, &out, func(string) string { return "" }}
		log := newLog(e, config.Log{Level: "info", Format: format})
		log.Info().Str("socket", hostile).Strs("names", []string{hostile}).Err(errors.New(hostile)).Msg(hostile)
		if n := strings.Count(out.String(), "gol.kcos"); n != 4 {
			t.Errorf("%s: the name is there %d times, want 4:\n%q", format, n, out.String())
		}
		if strings.ContainsAny(out.String(), "\x1b\a\r\u009b\u202e") {
			t.Errorf("%s: control characters:\n%q", format, out.String())
		}
	}
}
