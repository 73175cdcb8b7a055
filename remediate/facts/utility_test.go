package facts

import "testing"

// A stats server at port 0 is the socket that is none of the others.
func TestServesAtAChosenPort(t *testing.T) {
	for _, tt := range []struct {
		name, bound string
		utility     Utility
		want        bool
	}{
		{"as it is written", "127.0.0.1:9191", Utility{Address: "127.0.0.1:9191"}, true},
		{"a port that was chosen", "127.0.0.1:41001", Utility{Address: "127.0.0.1:0", Others: []string{"127.0.0.1:5000"}}, true},
		{"of any address", "0.0.0.0:41001", Utility{Address: ":0", Others: []string{}}, true},
		{"the application's", "127.0.0.1:5000", Utility{Address: "127.0.0.1:0", Others: []string{"127.0.0.1:5000"}}, false},
		{"at another address", "10.0.0.1:41001", Utility{Address: "127.0.0.1:0", Others: []string{}}, false},
		{"one of several", "127.0.0.1:41001", Utility{Address: "127.0.0.1:0"}, false},
	} {
		tt.utility.Stats = true
		s := Socket{Family: TCP, Address: tt.bound, Config: Config{Utilities: &[]Utility{tt.utility}}}
		if got := s.Serves() != ""; got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
