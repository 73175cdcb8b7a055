package uwsgiconf

import "strings"

// binds are the options that make uWSGI listen at the address that they name:
// its sockets and stats (core/uwsgi.c, uwsgi_base_options), and those of the
// plugins http, corerouter's children and zergpool (their *_options), and whether
// its own workers serve what comes there. What follows a comma is not the address: a
// certificate, or what a router does.
var binds = map[string]bool{
	"socket": true, "uwsgi-socket": true, "suwsgi-socket": true, "ssl-socket": true,
	"http-socket": true, "http11-socket": true, "https-socket": true, "fastcgi-socket": true, "fastcgi-nph-socket": true,
	"scgi-socket": true, "scgi-nph-socket": true, "raw-socket": true, "puwsgi-socket": true,
	"shared-socket": true, "undeferred-shared-socket": true,
	"http": false, "httprouter": false, "https": false, "https2": false, "http2": false, "http-to-https": false,
	"fastrouter": false, "rawrouter": false, "sslrouter": false, "sslrouter2": false, "sslrouter-sni": false,
	"zerg-server": false, "zergpool": false, "zerg-pool": false,
}

// Serves reports whether an option names an address at which the workers serve.
func Serves(name string) bool { return binds[name] }

// isStats reports whether an option makes uWSGI give statistics at the address that
// it names: the stats servers of uWSGI itself, of its emperor (emperor-stats) and of
// its routers (http-stats, fastrouter-ss, … in plugins/*).
func isStats(name string) bool {
	switch name {
	case "stats", "stats-server", "emperor-stats", "emperor-stats-server":
		return true
	}
	for _, router := range []string{"http", "fastrouter", "rawrouter", "sslrouter", "forkptyrouter", "tuntap-router"} {
		switch kind, _ := strings.CutPrefix(name, router); kind {
		case "-stats", "-stats-server", "-ss":
			return true
		}
	}
	return false
}

// Service is an address at which a uWSGI listens, and where no application answers.
type Service struct {
	Address    string
	Stats      bool // else it hands out sockets, to the instances of a zerg
	Option, At string
}

// Services lists those that a configuration asks for, as Sockets does.
func Services(options []Option) (found []Service) {
	for _, o := range options {
		addresses := o.addresses()
		if len(addresses) == 0 {
			continue
		}
		switch o.Name {
		case "zerg-server", "zergpool", "zerg-pool":
			found = append(found, Service{addresses[0], false, o.Name, o.At})
		default:
			if isStats(o.Name) {
				found = append(found, Service{addresses[0], true, o.Name, o.At})
			}
		}
	}
	return found
}

// Sockets lists the addresses that a configuration makes uWSGI listen at, as
// they are written there, also those in a condition. "=0" is another one of
// them, "fd://3" no address; one that is not known here is left out.
func Sockets(options []Option) (addresses []string) {
	for _, o := range options {
		addresses = append(addresses, o.addresses()...)
	}
	return addresses
}

// addresses are those at which an option makes uWSGI listen.
func (o Option) addresses() []string {
	if _, is := binds[o.Name]; !is && !isStats(o.Name) || o.Unknown != "" {
		return nil
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
		pool, rest, ok := strings.Cut(o.Text, ":")
		if !ok {
			return nil
		}
		return append([]string{pool}, strings.Split(rest, ",")...)
	}
	if address == "" || strings.HasPrefix(address, "=") || strings.HasPrefix(address, "fd://") {
		return nil
	}
	return []string{address}
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
