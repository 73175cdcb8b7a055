package lookup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// server answers questions with their number.
type server struct {
	mu    sync.Mutex
	asked []string
	open  int           // questions that have not come back
	takes time.Duration // it gives up at the deadline
	hang  chan struct{} // it does not come back before this is closed, whatever the deadline
	err   error
}

func (s *server) ask(ctx context.Context, key string) (int, error) {
	s.mu.Lock()
	s.asked = append(s.asked, key)
	n, takes, hang, err := len(s.asked), s.takes, s.hang, s.err
	s.open++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	if hang != nil {
		<-hang
	}
	select {
	case <-time.After(takes):
		return n, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// set changes how the server answers.
func (s *server) set(takes time.Duration, hang chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes, s.hang, s.err = takes, hang, err
}

// counts are the questions so far, and those that have not come back.
func (s *server) counts() (asked, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked), s.open
}

const patience = 50 * time.Millisecond

// look starts and waits as an observer does, and returns how long that took.
func look(table *Table[string, int], keys ...string) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	table.Start(keys)(ctx)
	return time.Since(began)
}

func newTable() (*server, *Table[string, int]) {
	s := &server{}
	return s, &Table[string, int]{Ask: s.ask, Deadline: time.Second, Good: 2 * time.Second}
}

func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, table := newTable()
		refused := errors.New("refused")
		for i, c := range []struct {
			after time.Duration
			err   error
			want  Answer[int]
		}{
			{0, nil, Answer[int]{Value: 1}},
			{1999 * time.Millisecond, nil, Answer[int]{Value: 1}}, // serves for two seconds
			{time.Millisecond, nil, Answer[int]{Value: 2}},
			{2 * time.Second, refused, Answer[int]{Value: 2, Err: refused}}, // the good one is kept
			{0, refused, Answer[int]{Value: 2, Err: refused}},               // an error is asked again at once
			{0, nil, Answer[int]{Value: 5}},
		} {
			time.Sleep(c.after)
			s.set(0, nil, c.err)
			look(table, "a")
			got := table.Get("a")
			if got.Value != c.want.Value || got.Err != c.want.Err || got.Late || got.Within(time.Hour) != (c.err == nil) {
				t.Errorf("%d: got %+v, want %+v", i, got, c.want)
			}
		}
		if a := table.Get("b"); a.Err == nil || a.Within(time.Hour) {
			t.Errorf("of a key that nobody asked for: %+v", a)
		}
	})
}

// Whoever does not answer is waited for once, all of them together, until he
// has answered again.
func TestSilent(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, table := newTable()
			look(table, "a")
			at := table.Get("a").At
			var hang chan struct{}
			if hangs {
				hang = make(chan struct{})
			}
			s.set(time.Hour, hang, nil)
			time.Sleep(2 * time.Second)
			keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
			if took := look(table, keys...); took != patience {
				t.Errorf("hangs %v: waited %s, want %s", hangs, took, patience)
			}
			for _, after := range []time.Duration{0, 2 * time.Second, time.Minute} {
				time.Sleep(after)
				if took := look(table, keys...); took != 0 {
					t.Errorf("hangs %v: waited %s again", hangs, took)
				}
			}
			synctest.Wait()
			if _, open := s.counts(); open != len(keys) {
				t.Errorf("hangs %v: %d questions are open, want %d", hangs, open, len(keys))
			}
			a, b := table.Get("a"), table.Get("b")
			if a.Value != 1 || a.At != at || !a.Late || a.Err.Error() != "it has not answered for 1m2.1s" || a.Within(time.Minute) || !a.Within(time.Hour) {
				t.Errorf("hangs %v: got %+v", hangs, a)
			}
			if b.Value != 0 || !b.Late || b.Within(time.Hour) {
				t.Errorf("hangs %v: never answered: got %+v", hangs, b)
			}

			s.set(0, nil, nil)
			if hangs {
				close(hang)
			}
			time.Sleep(2 * time.Second)
			look(table, keys...)
			synctest.Wait()
			if a := table.Get("a"); a.Err != nil || a.Late || a.Value == 1 {
				t.Errorf("hangs %v: after it has answered again: %+v", hangs, a)
			}
			s.set(time.Hour, nil, nil)
			time.Sleep(2 * time.Second)
			if took := look(table, keys...); took != patience {
				t.Errorf("hangs %v: waited %s for what had answered again, want %s", hangs, took, patience)
			}
			time.Sleep(time.Second)
		})
	}
}

// What is forgotten is no longer asked, where it can be told so.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, table := newTable()
		s.set(time.Hour, nil, nil)
		look(table, "a", "b")
		look(table, "b")
		synctest.Wait()
		if _, open := s.counts(); open != 1 || len(table.table.entries) != 1 {
			t.Errorf("%d questions are open, and %d keys known, want 1", open, len(table.table.entries))
		}
		look(table)
		synctest.Wait()
		if _, open := s.counts(); open != 0 || len(table.table.entries) != 0 {
			t.Errorf("%d questions are open, and %d keys known, want none", open, len(table.table.entries))
		}
	})
}

// As many hang as there are slots; the others are not asked, and say so.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, table := newTable()
		table.Slots = NewSlots(2, 2)
		hang := make(chan struct{})
		s.set(0, hang, nil)
		look(table, "a", "b", "c")
		time.Sleep(time.Minute)
		look(table, "a", "b", "c")
		synctest.Wait()
		if asked, open := s.counts(); asked != 2 || open != 2 {
			t.Errorf("%d were asked for, %d are open, want 2", asked, open)
		}
		for _, key := range []string{"a", "b", "c"} {
			if a := table.Get(key); !a.Late {
				t.Errorf("%s: %+v", key, a)
			}
		}
		close(hang)
		time.Sleep(time.Second)
	})
}

// Whoever's questions hang keeps only his own waiting.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		table := &Table[string, int]{
			Deadline: time.Second, Slots: NewSlots(3, 2),
			Share: func(key string) any {
				if key[0] == 'x' {
					return 'x'
				}
				return nil
			},
			Ask: func(_ context.Context, key string) (int, error) {
				if key[0] == 'x' {
					<-hang
				}
				return 1, nil
			},
		}
		keys := []string{"x1", "x2", "x3", "x4", "a", "b"}
		wait := table.Start(keys)
		time.Sleep(time.Millisecond)
		for _, key := range []string{"a", "b"} {
			if got := table.Get(key); got.Value != 1 || got.Err != nil {
				t.Errorf("%s: %+v", key, got)
			}
		}
		close(hang)
		wait(t.Context())
		for _, key := range keys {
			if got := table.Get(key); got.Value != 1 || got.Err != nil {
				t.Errorf("%s: %+v", key, got)
			}
		}
	})
}

// Many that each have a share of their own have half of the slots together.
func TestManyShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		table := &Table[int, int]{
			Deadline: time.Second, Slots: NewSlots(8, 2),
			Share: func(key int) any {
				if key == 0 {
					return nil
				}
				return key
			},
			Ask: func(_ context.Context, key int) (int, error) {
				if key != 0 {
					<-hang
				}
				return 1, nil
			},
		}
		keys := make([]int, 100)
		for i := range keys {
			keys[i] = 99 - i
		}
		wait := table.Start(keys)
		time.Sleep(time.Millisecond)
		if got := table.Get(0); got.Value != 1 || got.Err != nil {
			t.Errorf("%+v", got)
		}
		close(hang)
		wait(t.Context())
		if n := len(table.Slots.shares); n != 0 {
			t.Errorf("%d shares are kept that nobody has", n)
		}
	})
}

func TestOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, table := newTable()
		one := func() string {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			n, err := table.One(ctx, "a")
			return fmt.Sprint(n, " ", err)
		}
		for _, want := range []string{"1 <nil>", "2 <nil>"} { // each time anew
			if got := one(); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		hang := make(chan struct{})
		s.set(0, hang, nil)
		for range 3 {
			if got := one(); !strings.Contains(got, "it has not answered for ") {
				t.Errorf("got %s", got)
			}
		}
		if _, open := s.counts(); open != 1 {
			t.Errorf("%d questions are open, want 1", open)
		}
		close(hang)
		synctest.Wait()
		s.set(0, nil, nil)
		if got := one(); got != "4 <nil>" {
			t.Errorf("after it has come back: %s", got)
		}
		if table.One(t.Context(), "b"); len(table.table.entries) != 1 {
			t.Errorf("%d answers are kept", len(table.table.entries))
		}
	})
}

// Several may ask at the same time.
func TestOneOfMany(t *testing.T) {
	s, table := newTable()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			for range 100 {
				if _, err := table.One(t.Context(), fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if asked, _ := s.counts(); asked != 100*100 {
		t.Errorf("%d questions, want %d", asked, 100*100)
	}
}
