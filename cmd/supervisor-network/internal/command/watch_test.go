package command

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/page"
)

// shown is the live view of a daemon that works alone.
func shown(t *testing.T, token page.Token) *httptest.Server {
	t.Helper()
	w, state := view.New(), view.State{Build: "supervisor-network", Ready: true, Policy: view.Policy{Generation: 1}}
	s := httptest.NewServer(page.New(func() *view.Snapshot { return w.Snapshot(state, nil) }, page.Options{Token: token}))
	t.Cleanup(s.Close)
	return s
}

func watch(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), append([]string{"watch"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestWatchWritesALineForEachAnswer(t *testing.T) {
	s := shown(t, "")
	code, out, errs := watch(t, "--url", s.URL+"/view.json", "--count", "2")
	if code != exitOK || errs != "" || strings.Count(out, "\n") != 2 || strings.Count(out, " ready, policy generation 1, without a process daemon; allowed 0 (0.0/s)") != 2 {
		t.Errorf("%d %q %q", code, out, errs)
	}
}

func TestWatchSaysWhatIsWrong(t *testing.T) {
	big := `{"build":"` + strings.Repeat("x", maxView-len(`{"build":""}`))
	for name, tt := range map[string]struct {
		status     int
		body, want string
	}{
		"refused":                 {403, "not \x1b[2Jyou", `answers 403: not \u{1b}[2Jyou`},
		"no view":                 {200, "hello", "no view"},
		"as long as it may be":    {200, big + `"}`, ""},
		"longer than that by one": {200, big + `x"}`, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer s.Close()
			code, _, errs := watch(t, "--url", s.URL, "--count", "1")
			if want := tt.want; want == "" && code != exitOK || want != "" && (code != exitFailed || !strings.Contains(errs, want)) || strings.Contains(errs, "\x1b") {
				t.Errorf("%d %.300q", code, errs)
			}
		})
	}
	for _, args := range [][]string{{"x"}, {"--count", "-1"}, {"--nope"}} {
		if code, _, _ := watch(t, args...); code != exitUsage {
			t.Errorf("%v: %d", args, code)
		}
	}
}

func TestWatchEndsWhenItIsInterrupted(t *testing.T) {
	s := shown(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	out := writer(func([]byte) { cancel() })
	if code := Main(ctx, []string{"watch", "--url", s.URL + "/view.json"}, out, io.Discard); code != exitOK {
		t.Errorf("%d", code)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestWatchShowsTheToken(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := shown(t, page.Token(token))
	if code, out, errs := watch(t, "--url", s.URL+"/view.json", "--count", "1", "--token", token); code != exitOK || !strings.Contains(out, "ready, policy generation 1") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if code, _, errs := watch(t, "--url", s.URL+"/view.json", "--count", "1"); code != exitFailed || !strings.Contains(errs, "401: the view wants the admin token") {
		t.Errorf("%d %q", code, errs)
	}
	if code, _, errs := watch(t, "--url", s.URL+"/view.json", "--count", "1", "--token", "/nowhere"); code != exitFailed || !strings.Contains(errs, "read the admin token") {
		t.Errorf("%d %q", code, errs)
	}
}

func TestWatchSaysTheSameTroubleOnce(t *testing.T) {
	var out, errs bytes.Buffer
	w := &watcher{out: &out, errs: &errs}
	for _, err := range []error{errors.New("a"), errors.New("a"), errors.New("b"), nil, errors.New("b"), errors.New("b")} {
		s := &view.Snapshot{}
		if err != nil {
			s = nil
		}
		w.show(s, err)
	}
	if got := strings.ReplaceAll(errs.String(), "supervisor-network: ", ""); got != "a\nb\nb\n" || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%q, %q", got, out.String())
	}
}
