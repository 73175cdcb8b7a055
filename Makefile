# make demo   shows the main job on a real overflow, in a network namespace of its own
# make test   runs all tests
# make race   runs them with the race detector
# make build  builds a static binary: ./qwatch
# make lint   gofmt, go vet, staticcheck
# make package       builds dist/qwatch_VERSION_ARCH.deb and .rpm
# make test-systemd  tests the package on a booted systemd, in a container
# make reload-test   reloads uWSGI in many modes, with clients at work (FULL=1: all of them)
# make bench  measures, with ratios against other tools (BENCH="-short -only scan")
# make fuzz   fuzzes every parser of foreign bytes, a minute each (FUZZTIME=10s)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
export CGO_ENABLED = 0

UWSGI = uwsgi=uwsgi-core,uwsgi-plugin-python3

.PHONY: build demo test race lint bench fuzz package test-systemd reload-test

# Plain HTTP over loopback and a UNIX socket needs no HTTP/2.
TAGS = nethttpomithttp2

build:
	go build -trimpath -tags $(TAGS) -ldflags '-s -w -X main.version=$(VERSION)' -o qwatch ./cmd/qwatch

# Everything that the tests run besides Go itself. Two packages at a time: most
# of them wait for a real uWSGI. Where a test holds qwatch to a time, that is
# without what other programs took of the CPUs; figures are for make bench.
TOOLS = $(UWSGI) ss=iproute2 dbus-daemon=dbus logrotate=logrotate setpriv=util-linux man=man-db

test:
	@scripts/need $(TOOLS)
	go build ./...
	go test -p 2 -timeout 15m ./...

race:
	@scripts/need $(TOOLS) gcc=gcc,libc6-dev
	CGO_ENABLED=1 go test -race -p 1 -timeout 30m ./...

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go') | tee /dev/stderr)" || { echo 'lint: gofmt would change these files' >&2; false; }
	go vet ./...
	go vet -tags systemdtest,reloadtest ./...
	@! git grep -nE '\b[tbf]\.Skip(f|Now)?\(' -- '*_test.go' || { echo 'lint: only testbed.Needs skips a test, so that CI can forbid it' >&2; false; }
	go tool -modfile=tools/go.mod staticcheck ./...

demo:
	@scripts/need ss=iproute2
	@scripts/need $(UWSGI) || echo 'demo: uWSGI cannot be installed here; its stand-in takes the part'
	@mkdir -p dist
	@go build -o dist/ ./cmd/qwatch ./internal/testbed/standin ./internal/testbed/demo
	@dist/demo dist/qwatch dist/standin

bench:
	@scripts/need $(UWSGI) ss=iproute2 hyperfine=hyperfine rg=ripgrep mtail=mtail gzip=gzip /usr/bin/time=time
	@mkdir -p dist
	@go build -trimpath -ldflags '-s -w' -o dist/qwatch ./cmd/qwatch
	@go run ./internal/bench $(BENCH)

fuzz:
	@scripts/fuzz

package:
	@VERSION='$(VERSION)' scripts/package

test-systemd: package
	@VERSION='$(VERSION)' scripts/package-check
	@scripts/test-systemd

reload-test:
	@scripts/need $(TOOLS)
	@scripts/reload-test
