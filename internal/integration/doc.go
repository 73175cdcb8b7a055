// Package integration holds the tests of the whole: the real qwatch binary
// beside a real uWSGI under a real flood, in a network namespace of its own.
// What they compare with is what ss(8), /proc and the files say, never what
// qwatch says of itself alone.
package integration
