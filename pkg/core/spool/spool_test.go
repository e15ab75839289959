package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/pkg/core/spool"
)

// log is a stream that can stall and fail.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
	err  error
	gate chan struct{}
}

func (l *log) Write(p []byte) (int, error) {
	if l.gate != nil {
		<-l.gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	return l.text.Write(p)
}

func (l *log) string() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(out *log) (s *spool.Spool, end func()) {
	s = spool.New(out, func(b []byte, n uint64) []byte { return fmt.Appendf(b, "dropped %d\n", n) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	return s, func() { cancel(); <-done }
}

func TestLinesLeaveWholeOnceAndInOrder(t *testing.T) {
	out := &log{}
	s, end := start(out)
	const makers, each = 4, 5000
	var wg sync.WaitGroup
	for m := range makers {
		wg.Go(func() {
			for i := range each {
				s.Await(s.Add(fmt.Appendf(nil, "%d %d\n", m, i), i%500 == 0))
			}
		})
	}
	wg.Wait()
	end()
	next := make(map[int]int)
	for line := range strings.Lines(out.string()) {
		var m, i int
		if n, err := fmt.Sscanf(line, "%d %d\n", &m, &i); n != 2 || err != nil || i != next[m] {
			t.Fatalf("line %q of %d, want its number %d", line, m, next[m])
		}
		next[m]++
	}
	for m := range makers {
		if next[m] != each {
			t.Errorf("%d of %d lines of %d", next[m], each, m)
		}
	}
}

func TestTheBatchTakesItsLimitAndNotAByteMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{gate: make(chan struct{})}
		s, end := start(out)
		s.Add([]byte("under way\n"), true)
		synctest.Wait()
		const limit = 8 << 20
		s.Add(bytes.Repeat([]byte("x"), limit-1), false)
		s.Add([]byte("xx"), false)
		if n := s.Lost(); n != 1 {
			t.Errorf("%d lost at one byte above the limit", n)
		}
		s.Add([]byte("\n"), false)
		if n := s.Lost(); n != 1 {
			t.Errorf("%d lost at the limit", n)
		}
		close(out.gate)
		end()
		if text := out.string(); !strings.HasSuffix(text, "x\ndropped 1\n") {
			t.Errorf("it ends with %q", text[max(0, len(text)-40):])
		}
		if s.Add([]byte("late\n"), false); s.Lost() != 2 {
			t.Errorf("%d lost after the end", s.Lost())
		}
	})
}

// TestOneWaitsForAStalledLogAndThenNobody, until it is read again.
func TestOneWaitsForAStalledLogAndThenNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &log{gate: make(chan struct{})}
		s, end := start(out)
		waits := func() time.Duration {
			began := time.Now()
			s.Await(s.Add([]byte("line\n"), true))
			return time.Since(began)
		}
		if d := waits(); d != 250*time.Millisecond {
			t.Errorf("the first waited %s", d)
		}
		if d := waits(); d != 0 {
			t.Errorf("the second waited %s", d)
		}
		out.gate <- struct{}{}
		out.gate <- struct{}{}
		synctest.Wait()
		if d := waits(); d != 250*time.Millisecond {
			t.Errorf("after it was read again one waited %s", d)
		}
		close(out.gate)
		end()
	})
}

func TestWhatCannotBeWrittenIsCountedAndToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // waiting has a bound, which no busy machine makes pass
		out := &log{err: errors.New("no space")}
		s, end := start(out)
		s.Await(s.Add([]byte("one\n"), true))
		s.Await(s.Add([]byte("two\n"), true))
		if n := s.Lost(); n != 2 {
			t.Errorf("%d lost, want 2", n)
		}
		out.mu.Lock()
		out.err = nil
		out.mu.Unlock()
		s.Add([]byte("three\n"), false)
		end()
		if text := out.string(); text != "three\ndropped 2\n" {
			t.Errorf("written: %q", text)
		}
	})
}
