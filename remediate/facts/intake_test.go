package facts

import (
	"testing"
	"time"
)

func TestIntake(t *testing.T) {
	tcp := func(at float64, length int, opens, drops uint64) Look {
		return Look{At: time.Unix(0, int64(at*1e9)), Listens: true, Length: length, Opens: Known(opens), Drops: Known(uint32(drops))}
	}
	unix := func(at float64, length int) Look {
		return Look{At: time.Unix(0, int64(at*1e9)), Listens: true, Length: length, Opens: Absent[uint64](), Drops: Absent[uint32]()}
	}
	queue := func(at float64, clients ...uint32) Look {
		l := unix(at, len(clients))
		l.Clients = append([]uint32{}, clients...)
		return l
	}
	gone := func(at float64) Look { return Look{At: time.Unix(0, int64(at*1e9)), Opens: Known[uint64](0)} }
	type want struct {
		accepted  int
		came      bool
		unserved  float64
		isWaiting int
		untold    bool
	}
	for _, tt := range []struct {
		name  string
		sole  bool
		looks []Look
		want  want
	}{
		{"nobody comes", true, []Look{tcp(0, 0, 9, 9), tcp(5, 0, 9, 9)}, want{}},
		{"each is accepted at once", true, []Look{tcp(0, 0, 9, 9), tcp(1, 0, 19, 19), tcp(2, 0, 29, 29)}, want{20, true, 0, 0, false}},
		{"beside another socket", false, []Look{tcp(0, 0, 9, 9), tcp(1, 0, 30, 19), tcp(2, 0, 50, 29)}, want{10, true, 0, 0, false}},
		{"only another socket's", false, []Look{tcp(0, 0, 9, 9), tcp(1, 0, 30, 9), tcp(2, 0, 50, 9)}, want{untold: true}},
		{"they wait, and nobody is accepted", true, []Look{tcp(0, 0, 0, 0), tcp(1, 5, 5, 5), tcp(9, 9, 9, 9)}, want{0, true, 9, 9, false}},
		{"that, beside a busy socket", false, []Look{tcp(0, 5, 0, 0), tcp(1, 5, 50, 0), tcp(9, 5, 90, 0)}, want{0, true, 9, 5, true}},
		{"for a while", true, []Look{tcp(0, 0, 0, 0), tcp(1, 5, 5, 5), tcp(9, 9, 9, 9), tcp(9.1, 4, 9, 9), tcp(9.5, 4, 9, 9)}, want{5, true, 9, 4, false}},
		{"short gaps are none", true, []Look{tcp(0, 5, 5, 5), tcp(0.5, 5, 5, 5), tcp(0.6, 4, 5, 5), tcp(1.2, 4, 5, 5)}, want{1, true, 0, 4, false}},
		{"a UNIX socket", false, []Look{unix(0, 3), unix(3, 3), unix(4, 2), unix(5, 3), unix(6, 1)}, want{3, true, 4, 1, true}},
		{"a UNIX socket whose requests are answered", false, []Look{unix(0, 3), {At: time.Unix(3, 0), Listens: true, Length: 3, Answers: 5}, {At: time.Unix(4, 0), Listens: true, Length: 3, Answers: 9}}, want{9, true, 0, 3, true}},
		{"a UNIX socket whose queue stays as long", false, []Look{queue(0, 1, 2, 3), queue(2, 2, 3, 4), queue(4, 5, 6, 7), queue(6, 6, 7, 8)}, want{5, true, 0, 3, true}},
		{"a UNIX socket whose clients give up", false, []Look{queue(0, 1, 2, 3), queue(2, 0, 2, 0), queue(4, 0, 0, 0), queue(6, 0, 0, 0, 9)}, want{0, true, 6, 4, true}},
		{"a UNIX socket whose queue is not told once", false, []Look{queue(0, 1, 2), unix(2, 2), queue(4, 1, 2)}, want{0, true, 4, 2, true}},
		{"the socket is gone", true, []Look{tcp(0, 0, 9, 9), gone(1), gone(4)}, want{0, false, 4, 0, true}},
		{"what was refused is not accepted", false, []Look{tcp(0, 129, 0, 0), tcp(1, 129, 0, 500), tcp(2, 129, 0, 900)}, want{0, true, 2, 129, false}},
	} {
		i := NewIntake(tt.sole)
		for _, l := range tt.looks {
			i.Add(l)
		}
		i = i.Settled()
		if got := (want{i.Accepted, i.Came, i.Unserved.Seconds(), i.Waiting, i.Untold}); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
