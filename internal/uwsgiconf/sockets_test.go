package uwsgiconf

import (
	"slices"
	"strings"
	"testing"
)

func TestSockets(t *testing.T) {
	files := map[string]string{"/etc/app.ini": `[uwsgi]
name = web
dir = /run/%(name)
socket = %(dir)/app.sock
http-socket = :8080
https = 0.0.0.0:8443,cert.pem,key.pem
http2 = addr=0.0.0.0:8444,cert=a.pem,key=b.pem
shared-socket = 127.0.0.1:80
socket = =0
socket = fd://3
fastcgi-socket = @fcgi
stats = $(STATS)
zergpool = /run/zerg.sock:127.0.0.1:90,127.0.0.1:91
listen = 200
chown-socket = www-data
if-exists = /x
http = 127.0.0.1:9090
endif =
emperor = dir:///etc/vassals
emperor = /etc/uwsgi/vassals
emperor = zmq://tcp://127.0.0.1:1
`}
	s, err := Find(Input{
		Args:    strings.Fields("uwsgi --uwsgi-socket=[::1]:5001 -s 127.0.0.1:5000 --http-socket-modifier1 9 /etc/app.ini"),
		Environ: []string{"UWSGI_SCGI_SOCKET=127.0.0.1:5002", "STATS=127.0.0.1:9191"},
		Read:    func(path string) ([]byte, error) { return []byte(files[path]), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`127.0.0.1:5002 [::1]:5001 127.0.0.1:5000 /run/web/app.sock :8080 0.0.0.0:8443 0.0.0.0:8444
		127.0.0.1:80 @fcgi 127.0.0.1:9191 /run/zerg.sock 127.0.0.1:90 127.0.0.1:91 127.0.0.1:9090`)
	if got := Sockets(s.Options); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	// Where applications answer is no service.
	if got := Services(s.Options); !slices.Equal(got, []Service{
		{"127.0.0.1:9191", true, "stats", "/etc/app.ini:12"}, {"/run/zerg.sock", false, "zergpool", "/etc/app.ini:13"},
	}) {
		t.Errorf("services: %+v", got)
	}
	if got := Emperors(s.Options); !slices.Equal(got, []string{"/etc/vassals", "/etc/uwsgi/vassals"}) {
		t.Errorf("emperors: %q", got)
	}
}
