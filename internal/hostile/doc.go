// Package hostile holds the tests of what strangers can do to the built qwatch:
// each scene is an attack by a user without rights, beside a real uWSGI of the
// system's own whose overflow must be raised as if nothing were. A scene runs in
// a network namespace and with a process table of its own, and its daemon with
// the capabilities of the packaged service.
package hostile
