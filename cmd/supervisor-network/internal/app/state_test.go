package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/credentials"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/seal"
	"github.com/splitpod/splitpod/test/need"
)

func TestAStateDirectoryWithoutRoomIsNotReady(t *testing.T) {
	for name, c := range map[string]struct {
		free uint64
		err  error
		ok   bool
		say  string
	}{
		"room":              {16 << 20, nil, true, "16384 KiB free"},
		"at the limit":      {leastRoom, nil, true, "1024 KiB free"},
		"one byte less":     {leastRoom - 1, nil, false, "full"},
		"nothing":           {0, nil, false, "0 KiB free; the state directory is full"},
		"it cannot be told": {0, errors.New("no such directory"), false, "no such directory"},
	} {
		got := stateRoom{func() (uint64, error) { return c.free, c.err }}.check()
		if got.Name != "state" || got.OK != c.ok || !strings.Contains(got.Detail, c.say) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := roomOf(filepath.Join(t.TempDir(), "gone")).check(); got.OK {
		t.Errorf("a directory that is not there: %+v", got)
	}
	if free, err := roomOf(t.TempDir()).free(); err != nil || free == 0 {
		t.Errorf("a directory that is there: %d, %v", free, err)
	}
}

// TestAStateDirectoryThatIsAnotherIsNotReady, and the old one in its place again is.
func TestAStateDirectoryThatIsAnotherIsNotReady(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	d := &daemon{cfg: &config.Config{StateDir: dir}}
	if err := d.openState(); err != nil {
		t.Fatal(err)
	}
	defer d.inbox.Release()
	file, away := filepath.Join(dir, inboxFile), dir+".away"
	for _, step := range []struct {
		name string
		do   func() error
		say  string // empty: it is ready
	}{
		{"as it was opened", func() error { return nil }, ""},
		{"gone", func() error { return os.Rename(dir, away) }, "no such file"},
		{"an empty one in its place", func() error { return os.Mkdir(dir, 0o700) }, "emptied or replaced"},
		{"one of another daemon", func() error { return os.WriteFile(file, nil, 0o600) }, "emptied or replaced"},
		{"put back", func() error { return errors.Join(os.RemoveAll(dir), os.Rename(away, dir)) }, ""},
		{"emptied", func() error { return os.Remove(file) }, "emptied or replaced"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := d.state.check(); got.OK != (step.say == "") || !strings.Contains(got.Detail, step.say) || !got.OK && !strings.Contains(got.Detail, dir) {
			t.Errorf("%s: %+v", step.name, got)
		}
	}
}

func TestAReadOnlyStateDirectoryIsNotReady(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	if got := roomOf(dir).check(); got.OK || !strings.Contains(got.Detail, dir+" is read-only") {
		t.Errorf("%+v", got)
	}
}

// journal is a log.
type journal struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// said is how many times it has a text.
func (j *journal) said(what string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), what)
}

func TestALackOfRoomIsSaidOnceAndItsEndToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		var log journal
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		free.Store(16 << 20)
		r := stateRoom{func() (uint64, error) { return free.Load(), nil }}
		go r.watch(ctx, slog.New(slog.NewTextHandler(&log, nil)))
		for _, step := range []struct {
			free       uint64
			gone, back int
		}{{16 << 20, 0, 0}, {0, 1, 0}, {100, 1, 0}, {16 << 20, 1, 1}, {15 << 20, 1, 1}, {0, 2, 1}} {
			free.Store(step.free)
			time.Sleep(10 * time.Second)
			if gone, back := log.said("no room for state"), log.said("room for state again"); gone != step.gone || back != step.back {
				t.Errorf("with %d bytes it was said %d and %d times, want %d and %d", step.free, gone, back, step.gone, step.back)
			}
		}
	})
}

// What an operator reads of the keys follows every change, also one of which only the
// revision tells, and is written when a full disk has room again.
func TestWhatIsKnownOfKeysFollowsARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("token", "first-value")
		write("credentials.yaml", "version: 1\ncredentials:\n  TOKEN: {file: "+dir+"/token, bindings: [{host: api.test, port: 443}]}\n")
		store, _, err := credentials.Open(credentials.Config{File: filepath.Join(dir, "credentials.yaml")})
		if err != nil {
			t.Fatal(err)
		}
		var log journal
		d := &daemon{cfg: &config.Config{StateDir: state}, vault: &seal.Vault{Store: store}, log: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait() // for the last writing
		defer cancel()
		go d.keepUsage(ctx)
		time.Sleep(time.Minute) // it cannot be written
		if n := log.said("could not be written"); n != 1 {
			t.Errorf("that it cannot be written was said %d times", n)
		}
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		revision := func() uint64 {
			time.Sleep(6 * time.Second)
			u, err := credentials.ReadUsage(state)
			if err != nil || len(u.Keys) != 1 {
				t.Fatalf("%v, %+v", err, u)
			}
			return u.Keys[0].Revision
		}
		if got := revision(); got != 1 {
			t.Errorf("revision %d", got)
		}
		write("token", "second-value")
		store.Reload()
		if got := revision(); got != 2 {
			t.Errorf("after a rotation: revision %d", got)
		}
	})
}
