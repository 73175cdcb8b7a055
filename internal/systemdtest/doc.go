// Package systemdtest tests the installed package on a booted systemd, in a
// container of systemd-nspawn. It runs only as `make test-systemd`, which sets
// the build tag and the environment that it needs.
package systemdtest
