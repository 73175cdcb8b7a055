package uwsgi

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"qwatch/internal/uwsgiconf"
	"qwatch/remediate/facts"
)

// loops are the options that choose a loop, and with it how many requests one
// worker holds where they have a value.
var loops = []string{"asyncio", "gevent", "greenlet", "ugreen", "fiber", "coroae", "tornado"}

// recyclers are the options that make workers end by themselves.
var recyclers = []string{
	"max-requests", "min-worker-lifetime", "max-worker-lifetime", "reload-on-as", "reload-on-rss", "reload-on-uss", "reload-on-pss",
	"evil-reload-on-as", "evil-reload-on-rss", "reload-on-exception", "reload-on-exception-type", "reload-on-exception-value",
	"reload-on-exception-repr", "worker-exec",
}

// announced are the options that name an app of which uWSGI says how long it took
// to load.
var announced = []string{
	"wsgi-file", "file", "eval", "module", "wsgi", "mount", "pecan", "paste", "ini-paste", "ini-paste-logged", "web3", "pump", "wsgi-lite",
	"psgi", "rack", "mono-app",
}

// modeOf is how options let a uWSGI reload. Of a number that stands in a condition
// and of the one before it the larger counts; one that is not known changes nothing.
func modeOf(options []uwsgiconf.Option) facts.Mode {
	m := facts.NewMode()
	threads, async, initial, mercy, harakiri := 1, 1, 0, 0, 0
	for _, o := range options {
		n, _ := strconv.Atoi(strings.TrimSpace(o.Text))
		on := !o.Off()
		number := func(to *int) {
			switch {
			case o.Unknown != "":
			case o.Conditional:
				*to = max(*to, n)
			default:
				*to = max(n, 0)
			}
		}
		switch o.Name {
		case "lazy":
			m.Lazy = on
		case "lazy-apps":
			m.LazyApps = on
		case "cheaper":
			number(&m.Cheaper)
		case "cheaper-initial":
			number(&initial)
		case "cheap":
			m.Cheaper = max(m.Cheaper, 1)
		case "threads":
			number(&threads)
		case "async":
			number(&async)
		case "worker-reload-mercy":
			number(&mercy)
		case "harakiri":
			number(&harakiri)
		case "loop":
			m.Loop = o.Text
		}
		switch {
		case slices.Contains(loops, o.Name) && on:
			m.Loop = o.Name
			async = max(async, n)
		case slices.Contains(recyclers, o.Name) && on:
			m.Recycles = true
		case slices.Contains(announced, o.Name):
			m.Announced = true
		}
	}
	if m.Loop == "simple" || m.Loop == "async" { // uWSGI's own
		m.Loop = ""
	}
	if m.Cheaper > 0 {
		m.Cheaper = max(m.Cheaper, initial)
	}
	m.Cores = max(threads, async, 1)
	m.Harakiri = time.Duration(harakiri) * time.Second
	if mercy > 0 {
		m.Mercy = time.Duration(mercy) * time.Second
	}
	return m
}
