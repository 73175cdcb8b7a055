//go:build systemdtest

package systemdtest

import (
	"testing"

	"qwatch/internal/testbed/container"
)

// machine is a container with what the tests ask of it.
type machine struct{ *container.Machine }

func boot(t *testing.T, base string) *machine {
	t.Helper()
	return &machine{container.Boot(t, base)}
}
