package uwsgiconf

import "strings"

// binds are the options that make uWSGI listen at the address that they name:
// its sockets and stats (core/uwsgi.c, uwsgi_base_options), and those of the
// plugins http, corerouter's children and zergpool (their *_options). What
// follows a comma is not the address: a certificate, or what a router does.
var binds = map[string]bool{
	"socket": true, "uwsgi-socket": true, "suwsgi-socket": true, "ssl-socket": true,
	"http-socket": true, "http11-socket": true, "https-socket": true, "fastcgi-socket": true, "fastcgi-nph-socket": true,
	"scgi-socket": true, "scgi-nph-socket": true, "raw-socket": true, "puwsgi-socket": true,
	"shared-socket": true, "undeferred-shared-socket": true,
	"http": true, "httprouter": true, "https": true, "https2": true, "http2": true, "http-to-https": true,
	"fastrouter": true, "rawrouter": true, "sslrouter": true, "sslrouter2": true, "sslrouter-sni": true,
	"stats": true, "stats-server": true, "http-stats": true, "http-stats-server": true,
	"emperor-stats": true, "emperor-stats-server": true, "fastrouter-stats": true, "fastrouter-ss": true,
	"rawrouter-stats": true, "sslrouter-stats": true,
	"zerg-server": true, "zergpool": true, "zerg-pool": true,
}

// Sockets lists the addresses that a configuration makes uWSGI listen at, as
// they are written there, also those in a condition. "=0" is another one of
// them, "fd://3" no address; one that is not known here is left out.
func Sockets(options []Option) (addresses []string) {
	for _, o := range options {
		if !binds[o.Name] || o.Unknown != "" {
			continue
		}
		address, _, _ := strings.Cut(o.Text, ",")
		address = strings.TrimSpace(address)
		switch o.Name {
		case "https2", "http2", "sslrouter2":
			// addr=…,cert=…
			for part := range strings.SplitSeq(o.Text, ",") {
				if a, ok := strings.CutPrefix(strings.TrimSpace(part), "addr="); ok {
					address = a
				}
			}
		case "zergpool", "zerg-pool": // POOL:ADDRESS,ADDRESS
			if pool, rest, ok := strings.Cut(o.Text, ":"); ok {
				addresses = append(addresses, pool)
				addresses = append(addresses, strings.Split(rest, ",")...)
			}
			continue
		}
		if address == "" || strings.HasPrefix(address, "=") || strings.HasPrefix(address, "fd://") {
			continue
		}
		addresses = append(addresses, address)
	}
	return addresses
}

// Emperors lists the folders in which a configuration looks for vassals.
func Emperors(options []Option) (dirs []string) {
	for _, o := range options {
		if o.Name != "emperor" || o.Unknown != "" {
			continue
		}
		if dir := strings.TrimPrefix(o.Text, "dir://"); strings.HasPrefix(dir, "/") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
