package kernel

import (
	"bytes"
	"fmt"
	"strconv"

	"qwatch/internal/bounded"
)

// maxConnections is how much is read of a namespace's list of connections: some
// 25000 of them.
const maxConnections = 4 << 20

// Established counts the TCP connections with this local port that a process
// holds, at least.
func Established(pid int, port uint16) (n int) {
	held, _ := Sockets(pid)
	for _, file := range []string{"net/tcp", "net/tcp6"} {
		text, _ := bounded.ReadFile(procPath(pid, file), maxConnections) // what was cut is not counted
		n += established(text, port, held)
	}
	return n
}

// established reads /proc/net/tcp (proc_pid_net(5)): sl, local, remote, state, and
// as the tenth field the inode. 01 is TCP_ESTABLISHED.
func established(text []byte, port uint16, held map[uint64]int) (n int) {
	end := []byte(fmt.Sprintf(":%04X", port))
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 10 || !bytes.HasSuffix(fields[1], end) || string(fields[3]) != "01" {
			continue
		}
		inode, err := strconv.ParseUint(string(fields[9]), 10, 64)
		if _, own := held[inode]; err == nil && own {
			n++
		}
	}
	return n
}
