package facts

import "fmt"

// Fact is what is known of one thing about the host: its value, that there is
// none, or why it could not be seen. The zero Fact is unknown, so that what
// nobody has looked at never passes for "there is none".
type Fact[T any] struct {
	Value T // the zero T unless it is known
	State State
	Why   string // why it is not known
}

// State is how much is known of a thing.
type State byte

// The states of a Fact.
const (
	StateUnknown State = iota
	StateAbsent
	StateKnown
)

// Known is a thing that was seen.
func Known[T any](v T) Fact[T] { return Fact[T]{Value: v, State: StateKnown} }

// Absent is a thing of which it was seen that there is none.
func Absent[T any]() Fact[T] { return Fact[T]{State: StateAbsent} }

// Unknown is a thing that could not be seen, for this reason.
func Unknown[T any](why string) Fact[T] { return Fact[T]{Why: why} }

// Get returns the value; ok is false where there is none or none is known.
func (f Fact[T]) Get() (v T, ok bool) { return f.Value, f.State == StateKnown }

// IsAbsent reports whether it was seen that there is none.
func (f Fact[T]) IsAbsent() bool { return f.State == StateAbsent }

// Unseen says why it is not known, "" where it is known or absent.
func (f Fact[T]) Unseen() string {
	switch {
	case f.State != StateUnknown:
		return ""
	case f.Why == "":
		return "it was not looked at"
	}
	return f.Why
}

// String shows the state and the value.
func (f Fact[T]) String() string {
	switch f.State {
	case StateKnown:
		return fmt.Sprint(f.Value)
	case StateAbsent:
		return "none"
	}
	return "unknown: " + f.Unseen()
}
