package host

import (
	"testing"

	"qwatch/internal/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }
