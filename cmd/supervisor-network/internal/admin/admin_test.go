package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/api/supervisor/link"
)

func serve(t *testing.T, uid uint32) (dir string, asked *[]Question) {
	t.Helper()
	return serveTelling(t, uid, nil)
}

func serveTelling(t *testing.T, uid uint32, refused func(error)) (dir string, asked *[]Question) {
	t.Helper()
	dir, asked = t.TempDir(), new([]Question)
	l, err := Listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{UID: uid, Log: slog.New(slog.DiscardHandler), Refused: refused, Handlers: map[string]Handler{
		"echo": func(_ context.Context, q Question) (any, error) {
			*asked = append(*asked, q)
			return q.ID, nil
		},
		"fail": func(context.Context, Question) (any, error) { return nil, errors.New("not today") },
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dir, asked
}

func TestAQuestionIsAnswered(t *testing.T) {
	dir, _ := serve(t, uint32(os.Geteuid()))
	var got string
	if err := Ask(t.Context(), dir, Question{Command: "echo", ID: "x"}, &got); err != nil || got != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	for command, want := range map[string]string{"fail": "not today", "approve-all": "does not know"} {
		if err := Ask(t.Context(), dir, Question{Command: command}, &got); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", command, err, want)
		}
	}
}

func TestOnlyTheDaemonsOwnUserReachesTheSocket(t *testing.T) {
	dir, _ := serve(t, uint32(os.Geteuid()))
	info, err := os.Stat(filepath.Join(dir, Socket))
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the socket's mode is %v", mode)
	}
}

// F1: whoever has another uid is refused before anything is read.
func TestAnotherUserIsRefused(t *testing.T) {
	refused := make(chan error, 1)
	dir, asked := serveTelling(t, uint32(os.Geteuid())+1, func(err error) { refused <- err })
	var got string
	if err := Ask(t.Context(), dir, Question{Command: "echo"}, &got); err == nil {
		t.Error("another user is answered")
	}
	if len(*asked) != 0 {
		t.Error("another user's question was taken")
	}
	if err := <-refused; err == nil {
		t.Error("nobody is told who came")
	}
}

func raw(t *testing.T, dir, question string) string {
	t.Helper()
	c, err := link.Dial(t.Context(), "unix", dir, Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func(c *net.UnixConn) {
		_, _ = io.WriteString(c, question)
		_ = c.CloseWrite()
	}(c)
	out, _ := io.ReadAll(c)
	return string(out)
}

// The limit of a question is exact, and nobody says by himself who he is.
func TestQuestionsAreBoundedAndStrict(t *testing.T) {
	dir, asked := serve(t, uint32(os.Geteuid()))
	frame := len(`{"command":"echo","id":""}`)
	for n, want := range map[int]string{MaxQuestion: `"result"`, MaxQuestion + 1: "longer than"} {
		if got := raw(t, dir, `{"command":"echo","id":"`+strings.Repeat("x", n-frame)+`"}`); !strings.Contains(got, want) {
			t.Errorf("%d bytes: %.100s", n, got)
		}
	}
	for _, q := range []string{"", "{", "[]", `{"command":"echo"}{"command":"echo"}`} {
		if got := raw(t, dir, q); !strings.Contains(got, `"error"`) {
			t.Errorf("%q: %s", q, got)
		}
	}
	raw(t, dir, `{"command":"echo","by":4711,"By":4711}`)
	for _, q := range *asked {
		if q.By != uint32(os.Geteuid()) {
			t.Errorf("somebody is uid %d by his own word", q.By)
		}
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		l, err := Listen(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
}

func TestNoDaemonIsSaidPlainly(t *testing.T) {
	var got string
	if err := Ask(t.Context(), t.TempDir(), Question{}, &got); err == nil || !strings.Contains(err.Error(), "no daemon answers") {
		t.Error(err)
	}
}
