package websocket

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
)

// budget is a Budget for one goroutine at a time that knows how much was held at most.
type budget struct{ limit, held, most int64 }

func (b *budget) Take(n int64) bool {
	if b.held+n > b.limit {
		return false
	}
	b.held += n
	b.most = max(b.most, b.held)
	return true
}

func (b *budget) Give(n int64) { b.held -= n }

// TestWhatAMessageTakesIsCounted to the byte: it fits at the limit, and not above.
func TestWhatAMessageTakesIsCounted(t *testing.T) {
	for name, c := range map[string]struct {
		limit int64
		fits  bool
	}{"at the limit": {96 << 10, true}, "one byte less": {96<<10 - 1, false}} {
		b := &budget{limit: c.limit}
		x := taking{of: b}
		buf, err := x.room(make([]byte, 30<<10, 32<<10), 4<<10) // doubled
		if err != nil || cap(buf) != 64<<10 || len(buf) != 30<<10 || b.held != 32<<10 {
			t.Fatalf("%s: %d of %d bytes, %d held, %v", name, len(buf), cap(buf), b.held, err)
		}
		before := b.held
		if buf, err = x.room(buf[:64<<10], 1); (err == nil) != c.fits || !c.fits && (err != errCrowded || b.held != before || cap(buf) != 64<<10) {
			t.Errorf("%s: %d bytes, %d held, %v", name, cap(buf), b.held, err)
		}
		if c.fits && (cap(buf) != 128<<10 || b.held != 96<<10) {
			t.Errorf("%s: %d bytes, %d held", name, cap(buf), b.held)
		}
		if x.giveBack(); b.held != 0 {
			t.Errorf("%s: %d stay held", name, b.held)
		}
	}
}

// TestMessagesDrawOnTheBudget, whatever they are made of: in many frames, compressed, or
// replaced by longer ones. One for which there is no room closes its session, with a
// record, and holds nothing.
func TestMessagesDrawOnTheBudget(t *testing.T) {
	long := strings.Repeat("a", 1<<20)
	for rule, c := range map[string]struct {
		in     []byte
		change func(*Session)
	}{
		"in one frame": {masked(text, long), nil},
		"in fragments": {join(masked(textBegin, long[:1000]), masked(more, long[1000:2000]), masked(last, long[2000:])), nil},
		"compressed":   {masked(compressed, deflated(long)), deflating},
		"replaced by a long one": {masked(text, long[:1000]), func(s *Session) {
			s.Judge = func(context.Context, []byte) ([]byte, error) { return []byte(long), nil }
		}},
	} {
		for _, room := range []int64{1<<20 - keepBytes, 4 << 20} {
			synctest.Test(t, func(t *testing.T) {
				b := &budget{limit: room}
				s := exchange(t, c.in, true, func(s *Session) {
					s.Assemblies = NewAssemblies(b)
					if c.change != nil {
						c.change(s)
					}
				})
				if fits := room == 4<<20; fits {
					if got := s.upFrames(t); len(got) == 0 || got[0].payload != long || b.most < 1<<20-keepBytes {
						t.Errorf("%s: %d frames, %d bytes were held, %v", rule, len(got), b.most, s.err)
					}
				} else {
					wantRefused(t, s, errCrowded.(*CloseError))
				}
				if b.held != 0 || b.most > b.limit {
					t.Errorf("%s: %d bytes stay held, of %d", rule, b.held, b.most)
				}
			})
		}
	}
}
