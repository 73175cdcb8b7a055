package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"qwatch/internal/text"
)

// reading is what all who ask within a second are given: one look at the
// daemon, and the pages made of it, each once.
type reading struct {
	status  Status
	json    func() ([]byte, error)
	metrics func() []byte
}

// read makes a reading.
func (d *Daemon) read(ctx context.Context) (*reading, error) {
	status, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &reading{
		status: status,
		json: sync.OnceValues(func() ([]byte, error) {
			var b bytes.Buffer
			err := json.NewEncoder(text.Writer(&b)).Encode(status)
			return b.Bytes(), err
		}),
		metrics: sync.OnceValue(func() []byte { return d.metricsPage(status) }),
	}, nil
}

const (
	// readingAge is how old a reading may be.
	readingAge = time.Second
	// readingWait is how long one may take to make.
	readingWait = 5 * time.Second
)

// readings hands the newest reading out, and makes one when it is too old,
// however many ask for it.
type readings struct {
	read func(ctx context.Context) (*reading, error)

	mu     sync.Mutex
	newest *reading
	err    error         // why newest is missing
	at     time.Time     // when that was made
	making chan struct{} // closed when the next one is there; nil where none is being made
}

func (r *readings) get(ctx context.Context) (*reading, error) {
	r.mu.Lock()
	if r.making == nil && time.Since(r.at) < readingAge {
		defer r.mu.Unlock()
		return r.newest, r.err
	}
	if r.making == nil {
		r.making = make(chan struct{})
		// It goes on when the one who has asked first goes away.
		go r.renew(context.WithoutCancel(ctx), r.making)
	}
	making := r.making
	r.mu.Unlock()
	select {
	case <-making:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest, r.err
}

func (r *readings) renew(ctx context.Context, made chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, readingWait)
	defer cancel()
	newest, err := r.read(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest, r.err, r.at, r.making = newest, err, time.Now(), nil
	close(made)
}
