package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// program runs a shell command on a console, with nothing from the container.
func program(t *testing.T, terminal bool, script string) *Console {
	t.Helper()
	c, err := Open(terminal, uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Files[0], c.Files[1], c.Files[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: terminal}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe() // an input that never comes
	c.Launched(r, io.Discard, io.Discard)
	go func() {
		_ = cmd.Wait()
		c.Finish(core.Exit{Code: cmd.ProcessState.ExitCode()}, 5*time.Second)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		w.Close()
		<-c.ended
	})
	return c
}

// screen is what a viewer sees.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *screen) await(t *testing.T, want string) {
	t.Helper()
	for range 12_000 { // a minute
		if strings.Contains(s.String(), want) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("the viewer never saw %q, but %q", want, s)
}

func TestOutputIsReplayedWithItsExit(t *testing.T) {
	c := program(t, false, "echo one; echo two >&2; read x; echo got $x; exit 7")
	first := &screen{}
	exits := make(chan core.Exit, 2)
	go func() {
		exit, _ := c.Attach(t.Context(), Viewer{Out: first, Errors: io.Discard}, nil)
		exits <- exit
	}()
	first.await(t, "one\n")
	var late, lateErrors screen
	in, keyboard := io.Pipe()
	go func() {
		exit, err := c.Attach(t.Context(), Viewer{In: in, Out: &late, Errors: &lateErrors}, c.Lease())
		if err != nil {
			t.Error(err)
		}
		exits <- exit
	}()
	late.await(t, "one\n")
	lateErrors.await(t, "two\n")
	fmt.Fprintln(keyboard, "hello")
	for range 2 {
		if exit := <-exits; exit.Code != 7 {
			t.Errorf("exit %+v", exit)
		}
	}
	if first.String() != "one\ngot hello\n" || late.String() != "one\ngot hello\n" || lateErrors.String() != "two\n" {
		t.Errorf("seen: %q, %q, %q", first.String(), late.String(), lateErrors.String())
	}
}

// The end of the output and the exit are one event: a viewer who wakes by one of them
// must not be told the exit of nobody.
func TestEveryViewerIsToldTheExit(t *testing.T) {
	for range 2_000 {
		c, err := Open(false, uint32(os.Getuid()))
		if err != nil {
			t.Fatal(err)
		}
		c.Launched(strings.NewReader(""), io.Discard, io.Discard)
		var viewers sync.WaitGroup
		for range 4 {
			viewers.Go(func() {
				exit, err := c.Attach(t.Context(), Viewer{Out: io.Discard, Errors: io.Discard}, nil)
				if exit.Code != 7 || err != nil {
					t.Errorf("exit %+v, %v", exit, err)
				}
			})
		}
		c.Finish(core.Exit{Code: 7}, time.Minute)
		viewers.Wait()
	}
}

func TestOnlyOneTypes(t *testing.T) {
	c := program(t, true, "stty -echo; echo ready; while read x; do echo got $x; stty size; done")
	lease := c.Lease()
	if lease == nil || c.Lease() != nil {
		t.Fatal("there is not exactly one lease")
	}
	ctx, leave := context.WithCancel(t.Context())
	in, keyboard := io.Pipe()
	seen := &screen{}
	gone := make(chan error, 1)
	sizes := make(chan Size, 1)
	sizes <- Size{101, 51}
	go func() {
		_, err := c.Attach(ctx, Viewer{In: in, Out: seen, Errors: seen, Resizes: sizes}, lease)
		gone <- err
	}()
	seen.await(t, "ready")
	c.Resize(33, 22) // somebody without the lease
	fmt.Fprintln(keyboard, "first")
	seen.await(t, "got first\r\n51 101\r\n")
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("left with %v", err)
	}
	if c.Lease() == nil { // although the one who left has not closed their input
		t.Error("whoever types next finds somebody at it")
	}
	keyboard.Close()
}

// TestWhatTheOneWhoLeftTypesIsNobodys: their input goes on, and the program's is another's.
func TestWhatTheOneWhoLeftTypesIsNobodys(t *testing.T) {
	c := program(t, false, "cat; echo over")
	ctx, leave := context.WithCancel(t.Context())
	in, keyboard := io.Pipe()
	before := &screen{}
	gone := make(chan error, 1)
	go func() {
		_, err := c.Attach(ctx, Viewer{In: in, Out: before, Errors: io.Discard}, c.Lease())
		gone <- err
	}()
	fmt.Fprintln(keyboard, "first")
	before.await(t, "first\n")
	leave()
	<-gone
	fmt.Fprintln(keyboard, "late")
	keyboard.Close()
	lease := c.Lease()
	if lease == nil {
		t.Fatal("the one before has not given the lease back")
	}
	seen := &screen{}
	exit, err := c.Attach(t.Context(), Viewer{In: strings.NewReader("second\n"), Out: seen, Errors: seen}, lease)
	if err != nil || exit.Code != 0 || seen.String() != "first\nsecond\nover\n" {
		t.Errorf("%+v, %v, %q", exit, err, seen)
	}
}

// TestAProgramThatTakesNoInputIsSeenToItsEnd: what is typed nevertheless costs the viewer
// neither the last output nor the exit.
func TestAProgramThatTakesNoInputIsSeenToItsEnd(t *testing.T) {
	end := filepath.Join(t.TempDir(), "end")
	c := program(t, false, "exec </dev/null; echo deaf; until [ -e "+end+" ]; do sleep 0.01; done; echo last; exit 7")
	seen := &screen{}
	in, keyboard := io.Pipe()
	exits := make(chan core.Exit, 1)
	go func() {
		exit, err := c.Attach(t.Context(), Viewer{In: in, Out: seen, Errors: seen}, c.Lease())
		if err != nil {
			t.Error(err)
		}
		exits <- exit
	}()
	seen.await(t, "deaf")
	fmt.Fprintln(keyboard, "hello")
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if exit := <-exits; exit.Code != 7 || seen.String() != "deaf\nlast\n" {
		t.Errorf("exit %+v, seen %q", exit, seen)
	}
}

func TestDetachKeysLeaveTheProgramAlone(t *testing.T) {
	c := program(t, true, "stty -echo raw; echo ready; cat -v")
	for round := range 2 {
		seen := &screen{}
		in, keyboard := io.Pipe()
		gone := make(chan error, 1)
		lease := c.Lease()
		if lease == nil {
			t.Fatal("the one before has not given the lease back")
		}
		go func() {
			_, err := c.Attach(t.Context(), Viewer{In: in, Out: seen, Errors: seen, Detach: true}, lease)
			gone <- err
		}()
		seen.await(t, "ready")
		for _, keys := range []string{fmt.Sprintf("a%d\x10", round), "b\x10\x10", "c\x10", "\x11never"} {
			if _, err := keyboard.Write([]byte(keys)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-gone; !errors.Is(err, ErrDetached) {
			t.Errorf("left with %v", err)
		}
		again := &screen{}
		ctx, cancel := context.WithCancel(t.Context())
		go c.Attach(ctx, Viewer{Out: again, Errors: again}, nil) //nolint:errcheck // only the screen counts
		again.await(t, fmt.Sprintf("a%d^Pb^P^Pc", round))
		cancel()
		if strings.Contains(again.String(), "never") {
			t.Errorf("keys behind the detach keys reached the program: %q", again)
		}
	}
}

func TestAViewerWhoIsBehindIsLetGoAndStallsNobody(t *testing.T) {
	c := program(t, false, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo done >&2; read x")
	stuck, unstick := io.Pipe()
	behind := make(chan error, 1)
	go func() {
		_, err := c.Attach(t.Context(), Viewer{Out: unstick, Errors: io.Discard}, nil)
		behind <- err
	}()
	seen := &screen{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for !func() bool { c.history.mu.Lock(); defer c.history.mu.Unlock(); return c.history.first > 400 }() {
		time.Sleep(time.Millisecond)
	}
	go func() {
		for ctx.Err() == nil { // on a busy machine it may be behind, too, and comes again
			_, _ = c.Attach(ctx, Viewer{Out: io.Discard, Errors: seen}, nil)
		}
	}()
	seen.await(t, "done")
	go io.Copy(io.Discard, stuck) //nolint:errcheck // it ends with the pipe
	if err := <-behind; !errors.Is(err, ErrBehind) {
		t.Errorf("a viewer that reads nothing got %v", err)
	}
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	if c.history.size > maxKept || len(c.history.pieces) > maxPieces {
		t.Errorf("%d bytes in %d pieces are kept", c.history.size, len(c.history.pieces))
	}
}

func TestHistoryIsBoundedWhateverThePieces(t *testing.T) {
	var h history
	for i := range 3 * maxPieces {
		h.add(Stream(i%2), []byte{'x'})
	}
	if len(h.pieces) > maxPieces || h.size != len(h.pieces) {
		t.Errorf("%d bytes in %d pieces", h.size, len(h.pieces))
	}
	end := make(chan struct{})
	close(end)
	at := h.start()
	n := 0
	for {
		_, data, lost, ended := h.next(t.Context(), &at, end)
		if lost {
			t.Fatal("lost at the start")
		}
		if ended {
			break
		}
		n += len(data)
	}
	if n != h.size {
		t.Errorf("%d bytes of %d were shown", n, h.size)
	}
}

func TestEndOfInputReachesTheProgram(t *testing.T) {
	c := program(t, false, "cat; echo over")
	seen := &screen{}
	exit, err := c.Attach(t.Context(), Viewer{In: strings.NewReader("\x10\x11 binary \x10"), Out: seen, Errors: seen, Detach: true}, c.Lease())
	if err != nil || exit.Code != 0 || seen.String() != "\x10\x11 binary \x10over\n" {
		t.Errorf("%+v, %v, %q", exit, err, seen)
	}
}
