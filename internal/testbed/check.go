package testbed

// failure is what Check panics with.
type failure struct{ error }

// Check ends the function that Try runs where something has failed; what is
// deferred on the way ends the processes and deletes the files.
func Check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// Must is Check for what gives a value too.
func Must[T any](value T, err error) T {
	Check(err)
	return value
}

// Try runs a function and returns the error that Check has ended it with.
func Try(do func()) (err error) {
	defer func() {
		caught := recover()
		if f, ok := caught.(failure); ok {
			err = f.error
		} else if caught != nil {
			panic(caught)
		}
	}()
	do()
	return nil
}
