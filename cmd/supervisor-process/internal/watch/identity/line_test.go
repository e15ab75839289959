package identity

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// held makes a program connect until its line is held, and fails without one.
func (s *stand) held(a *actor, program string, ancestors ...string) core.Identity {
	s.t.Helper()
	var who core.Identity
	held := false
	for range 10 { // it is given back where this test stands still for a second
		for range 3 {
			fmt.Fprintln(a.in)
			who = s.want(a, core.IdentityKnown, program)
		}
		c := s.r.recent.all()[0]
		if l, _ := c.look(); c.pid == who.Process.PID && l != nil {
			held = true
			break
		}
	}
	var got []string
	for _, p := range who.Ancestors {
		got = append(got, p.Path)
	}
	if !slices.Equal(got, ancestors) {
		s.t.Errorf("ancestors %q, want %q", got, ancestors)
	}
	if !held {
		s.t.Errorf("pid %d connects again and again and is not held", who.Process.PID)
	}
	return who
}

// TestAHeldLineIsBelievedWhileItIsTrue: what was found out about a process counts until it,
// or one it descends from, ends or runs another program.
func TestAHeldLineIsBelievedWhileItIsTrue(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a, b, c := s.program("a"), s.program("b"), s.program("c")

		t.Run("it executes another program", func(t *testing.T) {
			turns := s.start(a, "again", s.address)
			s.held(turns, a)
			fmt.Fprintln(turns.in, b)
			runs(t, turns, b)
			s.held(turns, b)
		})
		t.Run("its parent executes another program", func(t *testing.T) {
			parent := s.start(b, "leave to", c, a, "again", s.address)
			s.held(parent, a, b)
			if err := parent.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			runs(t, parent, c)
			s.held(parent, a, c)
		})
		t.Run("its parent ends", func(t *testing.T) {
			parent := s.start(b, "spawn", a, "again", s.address)
			s.held(parent, a, b)
			if err := errors.Join(parent.cmd.Process.Kill(), wait(parent)); err != nil {
				t.Fatal(err)
			}
			s.held(parent, a)
		})
		t.Run("another process gets its pid", func(t *testing.T) {
			first := s.start(a, "again", s.address)
			pid := s.held(first, a).Process.PID
			if err := errors.Join(first.cmd.Process.Kill(), wait(first)); err != nil {
				t.Fatal(err)
			}
			if who := s.held(s.startAs(pid, b, "again", s.address), b); who.Process.PID != pid {
				t.Errorf("pid %d, want %d", who.Process.PID, pid)
			}
		})
		t.Run("its file has another content", func(t *testing.T) {
			d := s.program("d")
			turns := s.start(d, "again", s.address)
			s.held(turns, d)
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(d, later, later); err != nil { // as good as: who runs it keeps others from writing
				t.Fatal(err)
			}
			c := s.r.recent.all()[0]
			if c.unchanged() != nil {
				t.Error("a file that may have changed is believed to be what it was")
			}
		})
	})
}

// TestFewLinesAreHeld, however many processes connect.
func TestFewLinesAreHeld(t *testing.T) {
	sandboxed(t, func(t *testing.T) {
		s := newStand(t)
		a := s.program("a")
		// connect returns how many folders of proc(5) are open behind a further process.
		connect := func() (open int) {
			actor := s.start(a, "again", s.address)
			s.held(actor, a)
			actor.stop()
			entries, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "/proc/") {
					open++
				}
			}
			return open
		}
		one := connect()
		var all int
		for range 3 * maxRecent {
			all = connect()
		}
		if most := one + 2*(maxRecent-1); all > most {
			t.Errorf("%d folders are open behind many processes, want at most %d", all, most)
		}
		first := s.r.recent.all()[maxRecent-1]
		connect()
		if l, _ := first.look(); l != nil {
			t.Error("a process that nobody remembers is held")
		}
		until(t, "what nobody asks for is given back", func() bool {
			return !slices.ContainsFunc(s.r.recent.all(), func(c *connector) bool { l, _ := c.look(); return l != nil })
		})
		self, err := s.r.fs.read(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		later, adopted := self, self
		later.start++
		adopted.parent++
		for _, p := range []process{later, adopted} {
			if l, err := s.r.fs.hold([]process{p}, core.Identity{}); !errors.Is(err, errChanged) || l != nil {
				t.Errorf("another process that has the pid is held: %v", err)
			}
		}
		for ancestors, want := range map[int]bool{maxLine - 1: true, maxLine: false} {
			deep := s.start(a, "deep", s.address, strconv.Itoa(ancestors), "again")
			if want {
				s.held(deep, a, slices.Repeat([]string{a}, ancestors)...)
				continue
			}
			for range 3 {
				fmt.Fprintln(deep.in)
				s.want(deep, core.IdentityKnown, a)
			}
			if l, _ := s.r.recent.all()[0].look(); l != nil {
				t.Errorf("a process with %d ancestors is held", ancestors)
			}
		}
	})
}

// runs waits until an actor is another program.
func runs(t *testing.T, a *actor, program string) {
	t.Helper()
	until(t, fmt.Sprintf("pid %d runs %s", a.cmd.Process.Pid, program), func() bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", a.cmd.Process.Pid))
		return err == nil && exe == program
	})
}

// until waits for something that comes soon.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	for range 6000 { // a minute
		if there() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it did not come that %s", what)
}
