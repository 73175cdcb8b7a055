package facts

import "testing"

func TestAnswersTo(t *testing.T) {
	tests := []struct {
		family  Family
		address string
		name    string
		want    bool
	}{
		{TCP, "127.0.0.1:5000", "127.0.0.1:5000", true},
		{TCP, "127.0.0.1:5000", "localhost:5000", true},
		{TCP, "127.0.0.1:5000", ":5000", false},
		{TCP, "127.0.0.1:5000", "127.0.0.1:5001", false},
		{TCP, "127.0.0.1:5000", "127.0.0.1:70536", false}, // 5000 + 65536
		{TCP, "127.0.0.1:5000", "127.0.0.1:", false},
		{TCP, "127.0.0.1:5000", "5000", false},
		{TCP, "127.0.0.1:5000", "", false},
		{TCP, "127.0.0.1:5000", "example.org:5000", false},
		{TCP, "10.0.0.1:5000", "localhost:5000", false},
		{TCP, "0.0.0.0:5000", ":5000", true},
		{TCP, "0.0.0.0:5000", "*:5000", true},
		{TCP, "0.0.0.0:5000", "0:5000", true},
		{TCP, "0.0.0.0:5000", "0.0.0.0:5000", true},
		{TCP, "0.0.0.0:5000", "127.0.0.1:5000", false},
		{TCP6, "[::]:5000", ":5000", true},
		{TCP6, "[::]:5000", "[::]:5000", true},
		{TCP6, "[::1]:80", "[::1]:80", true},
		{TCP6, "[::1]:80", "[0:0:0:0:0:0:0:1]:80", true},
		{TCP6, "[::1]:80", "localhost:80", true},
		{TCP6, "[::1]:80", "[::2]:80", false},
		{TCP6, "[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
		{TCP6, "[::1]:80", "[::1", false},
		{Unix, "/run/app.sock", "/run/app.sock", true},
		{Unix, "/run/app.sock", "app.sock", true},
		{Unix, "/run/app.sock", "./app.sock", true},
		{Unix, "/run/app.sock", "p.sock", false},
		{Unix, "/run/app.sock", "/tmp/app.sock", false},
		{Unix, "/run/app.sock", "", false},
		{Unix, "/run/app.sock", ".", false},
		{Unix, "/run/app.sock", "..", false},
		{Unix, "/srv/run/app.sock", "run/app.sock", true},
		{Unix, "@app", "@app", true},
		{Unix, "@app", "app", false},
		{Unix, "@srv/app", "app", false}, // an abstract name is no path
		{Unix, "/run/127.0.0.1:5000", "127.0.0.1:5000", true},
		{Unix, "", "app.sock", false},
		{TCP, "", ":0", false},
	}
	for _, test := range tests {
		if got := (Address{test.family, test.address}).AnswersTo(test.name); got != test.want {
			t.Errorf("%s answers to %q: %v", test.address, test.name, got)
		}
	}
}

func TestIsListen(t *testing.T) {
	tests := []struct {
		family  Family
		address string
		want    string // the only one of all
	}{
		{TCP, "127.0.0.1:5000", "127.0.0.1:5000"},
		{TCP6, "[::ffff:127.0.0.1]:5000", "127.0.0.1:5000"},
		{TCP, "127.0.0.2:5000", ""},
		{TCP, "0.0.0.0:5000", ""},
		{TCP, "0.0.0.0:5001", "[::]:5001"},
		{TCP6, "[::]:5001", "[::]:5001"},
		{TCP, "127.0.0.1:5001", ""},
		{Unix, "/run/web.sock", "/run/web.sock"},
		{Unix, "/run/web", ""},
		{Unix, "@web", "@web"},
		{TCP6, "[2001:db8::1]:80", "[2001:db8:0::1]:80"},
		{TCP, "", ""},
		{Unix, "", ""},
	}
	for _, test := range tests {
		for _, listen := range []string{"127.0.0.1:5000", "[::]:5001", "/run/web.sock", "@web", "[2001:db8:0::1]:80", "app.example:80", ":", "5002"} {
			if got := (Address{test.family, test.address}).IsListen(listen); got != (listen == test.want) {
				t.Errorf("%s is %s: %v", test.address, listen, got)
			}
		}
	}
	for _, any := range []string{":5001", "*:5001", "0.0.0.0:5001", "[::]:5001"} {
		if !(Address{TCP6, "[::]:5001"}).IsListen(any) || !(Address{TCP, "0.0.0.0:5001"}).IsListen(any) || (Address{TCP, "10.0.0.1:5001"}).IsListen(any) {
			t.Errorf("any address by %s", any)
		}
	}
}

// A name that was looked up fits by its port; all others as uWSGI writes them.
func TestMayBe(t *testing.T) {
	for _, test := range []struct {
		family  Family
		address string
		name    string
		want    bool
	}{
		{TCP, "127.0.0.1:5000", "127.0.0.1:5000", true},
		{TCP, "127.0.0.1:5000", "localhost:5000", true},
		{TCP, "10.0.0.7:5000", "web1.example.org:5000", true},
		{TCP, "10.0.0.7:5000", "web1.example.org:15000", false},
		{TCP, "10.0.0.7:5000", "10.0.0.8:5000", false},
		{TCP, "10.0.0.7:5000", ":5000", false},
		{TCP, "0.0.0.0:5000", ":5000", true},
		{TCP6, "[::1]:5000", "[::1]:5000", true},
		{TCP, "127.0.0.1:5000", "5000", false},
		{Unix, "/run/app.sock", "/run/app.sock", true},
		{Unix, "/run/app.sock", "app.sock", true},
		{Unix, "/run/app.sock", "/srv/run/app.sock", false},
		{Unix, "@app", "@app", true},
	} {
		if got := (Address{test.family, test.address}).MayBe(test.name); got != test.want {
			t.Errorf("%s by %s: %v", test.address, test.name, got)
		}
	}
}
