//go:build reloadtest

package reloadtest

import "maps"

// broken is what a deploy has left, and a reload would find.
type broken struct {
	name    string
	lines   []string // of the application's configuration
	deploy  string   // a shell script
	younger string   // the file that then is younger, for which a reload is refused
	refused string   // why it is refused where deploy = true allows that; "": it is not
	heals   bool     // it serves in the end
	quick   bool
}

const app = "/srv/shop/app.py"

// brokenDeploys are those that end a site, or leave it with errors.
var brokenDeploys = []broken{
	{name: "syntax error", deploy: "echo 'def application(:' >shop/app.py", younger: app, quick: true},
	{name: "syntax error, lazy", lines: []string{"lazy = true"}, deploy: "echo 'def application(:' >shop/app.py", younger: app},
	{name: "syntax error, lazy-apps", lines: []string{"lazy-apps = true"}, deploy: "echo 'def application(:' >shop/app.py", younger: app},
	{name: "missing file", deploy: "rm shop/app.py", younger: app, refused: app},
	{name: "another port", deploy: "sed -i 's/:5000/:5009/' shop/shop.ini", younger: "no socket 127.0.0.1:5000", refused: "no socket 127.0.0.1:5000"},
	{name: "another protocol", deploy: "sed -i 's/^http-socket/socket/' shop/shop.ini", younger: "started with http-socket", refused: "started with http-socket"},
	{name: "fewer processes", deploy: "sed -i 's/^processes.*/processes = 1/' shop/shop.ini", younger: "1 process", refused: "1 process"},
	{name: "an import of 30 s", deploy: `sed -i '1i import time; time.sleep(30)' shop/app.py`, younger: app, heals: true},
	{name: "an import that fails after 8 s", deploy: `sed -i '1i import time; time.sleep(8); raise RuntimeError("no database")' shop/app.py`, younger: app},
	{name: "an import that crashes after 8 s, lazy-apps", lines: []string{"lazy-apps = true"}, deploy: `sed -i '1i import os, time; time.sleep(8); os.abort()' shop/app.py`, younger: app},
}

// goodDeploys are those after which people are served as before.
func goodDeploys() []mode {
	untouched := with("a newer app", refused(app))
	untouched.deploy = "touch shop/app.py"
	allowed := untouched
	allowed.name += ", deploy = true"
	allowed.policy, allowed.want = "deploy = true", by("hup")
	file := allowed
	file.name, file.deploy = "a newer configuration, deploy = true", "touch shop/shop.ini"
	unseen := with("a newer app, before qwatch started", refused(app))
	unseen.deploy, unseen.late = untouched.deploy, true
	loaded := with("a newer app, loaded by a reload", by("hup"), "pidfile = /srv/run/shop.pid")
	loaded.says = ""
	loaded.deploy = "touch shop/app.py; sleep 3; kill -HUP $(cat run/shop.pid)"
	return []mode{untouched, allowed, file, unseen, loaded}
}

// deploys are the broken ones, each looked at first, and passed by where that is
// allowed. Passed by, nothing may be called applied or fixed that is not.
func deploys() (all []mode) {
	for _, b := range brokenDeploys {
		m := with(b.name, refused(b.younger), b.lines...)
		m.says, m.deploy, m.quick, m.repeat = "", b.deploy, b.quick, true
		all = append(all, m)
		m.name += ", deploy = true"
		m.policy = "deploy = true"
		m.files = maps.Clone(m.files)
		m.want = refused(b.refused)
		if b.refused == "" {
			m.want = want{way: "hup", broken: true, heals: b.heals}
		}
		all = append(all, m)
	}
	return all
}
