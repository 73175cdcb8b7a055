//go:build reloadtest

package reloadtest

import "maps"

// broken is what a deploy has left, and a reload would find.
type broken struct {
	name   string
	lines  []string // of the application's configuration
	deploy string   // a shell script
	why    string   // words of the refusal
	always bool     // refused with deploy = true as well
	heals  bool     // it serves in the end
	quick  bool
}

// brokenDeploys are those that end a site, or leave it with errors.
var brokenDeploys = []broken{
	{name: "syntax error", deploy: "echo 'def application(:' >shop/app.py", why: "/srv/shop/app.py", quick: true},
	{name: "syntax error, lazy", lines: []string{"lazy = true"}, deploy: "echo 'def application(:' >shop/app.py", why: "/srv/shop/app.py"},
	{name: "syntax error, lazy-apps", lines: []string{"lazy-apps = true"}, deploy: "echo 'def application(:' >shop/app.py", why: "/srv/shop/app.py"},
	{name: "missing file", deploy: "rm shop/app.py", why: "/srv/shop/app.py", always: true},
	{name: "another port", deploy: "sed -i 's/:5000/:5009/' shop/shop.ini", why: "/srv/shop/shop.ini", always: true},
	{name: "another protocol", deploy: "sed -i 's/^http-socket/socket/' shop/shop.ini", why: "/srv/shop/shop.ini", always: true},
	{name: "fewer processes", deploy: "sed -i 's/^processes.*/processes = 1/' shop/shop.ini", why: "/srv/shop/shop.ini", always: true},
	{name: "an import of 30 s", deploy: `sed -i '1i import time; time.sleep(30)' shop/app.py`, why: "/srv/shop/app.py", heals: true},
	{name: "an import that fails after 8 s", deploy: `sed -i '1i import time; time.sleep(8); raise RuntimeError("no database")' shop/app.py`, why: "/srv/shop/app.py"},
	{name: "an import that crashes after 8 s, lazy-apps", lines: []string{"lazy-apps = true"}, deploy: `sed -i '1i import os, time; time.sleep(8); os.abort()' shop/app.py`, why: "/srv/shop/app.py"},
}

// goodDeploys are those after which people are served as before.
func goodDeploys() []mode {
	untouched := with("a newer app", refused("/srv/shop/app.py"))
	untouched.deploy = "touch shop/app.py"
	allowed := untouched
	allowed.name += ", deploy = true"
	allowed.policy, allowed.want = "deploy = true", by("hup")
	loaded := with("a newer app, loaded by a reload", by("hup"), "pidfile = /srv/run/shop.pid")
	loaded.says = ""
	loaded.deploy = "touch shop/app.py; sleep 3; kill -HUP $(cat run/shop.pid)"
	return []mode{untouched, allowed, loaded}
}

// deploys are the broken ones, each looked at first, and passed by where that is
// allowed. Passed by, nothing may be called applied or fixed that is not.
func deploys() (all []mode) {
	for _, b := range brokenDeploys {
		m := with(b.name, refused(b.why), b.lines...)
		m.says, m.deploy, m.quick, m.repeat = "", b.deploy, b.quick, true
		all = append(all, m)
		m.name += ", deploy = true"
		m.policy = "deploy = true"
		m.files = maps.Clone(m.files)
		if !b.always {
			m.want = want{way: "hup", broken: true, heals: b.heals}
		}
		all = append(all, m)
	}
	return all
}
