package gateway

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/test/openshell"
)

// TestWhenATokenIsRefreshed: at most of its time, within bounds, and not all at one moment.
func TestWhenATokenIsRefreshed(t *testing.T) {
	now := time.Now()
	plus := func(d time.Duration, token string) time.Duration { return d + d*time.Duration(len(token)%10)/100 }
	for name, c := range map[string]struct {
		token string
		base  time.Duration
	}{
		"an hour":           {openshell.Token("a", now.Truncate(time.Second).Add(time.Hour)), 48 * time.Minute},
		"a week":            {openshell.Token("b", now.Add(7*24*time.Hour)), 12 * time.Hour},
		"centuries":         {openshell.Token("e", now.AddDate(3000, 0, 0)), 12 * time.Hour},
		"over already":      {openshell.Token("c", now.Add(-time.Hour)), time.Second},
		"no end":            {openshell.Token("d", time.Unix(0, 0)), 6 * time.Hour},
		"not to be decoded": {"opaque", 6 * time.Hour},
		"no JSON":           {"a.b.c", 6 * time.Hour},
	} {
		if got, want := refreshIn(c.token, now.Truncate(time.Second)), plus(c.base, c.token); got.Round(time.Second) != want.Round(time.Second) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestATokenIsRefreshedInMemory in time, tried again, and the file is left as it is; a
// changed file counts at once and has a time of its own.
func TestATokenIsRefreshedInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := t.TempDir() + "/token"
		first, second, third := openshell.Token("first", time.Now().Add(100*time.Second)), openshell.Token("second", time.Now().Add(time.Hour)), openshell.Token("third", time.Now().Add(time.Hour))
		write := func(token string) {
			if err := os.WriteFile(file, []byte("\n "+token+" \n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var asked atomic.Int32
		tk := &tokens{file: file, changed: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler), hide: error.Error,
			renew: func(context.Context) (string, error) {
				if asked.Add(1) < 3 {
					return "", status.Error(codes.Unauthenticated, "not now")
				}
				return second, nil
			}}
		shows := func(want string) {
			t.Helper()
			if got, err := tk.current(t.Context()); err != nil || got != want {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if _, err := tk.current(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
			t.Fatalf("no file: %v", err)
		}
		go tk.keep(t.Context())
		write(first)
		shows(first)
		time.Sleep(70 * time.Second)
		if synctest.Wait(); asked.Load() != 0 {
			t.Fatal("it was refreshed too early")
		}
		time.Sleep(20 * time.Second) // 80 seconds, and up to a tenth more
		if synctest.Wait(); asked.Load() != 1 {
			t.Fatalf("it was asked for %d times", asked.Load())
		}
		shows(first)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		shows(second)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		shows(second)
		write(third)
		shows(third)
		write("two words")
		shows(third)
	})
}

// TestAServiceAccountIsExchanged for a token of the sandbox, and again when that is not
// taken any more.
func TestAServiceAccountIsExchanged(t *testing.T) {
	w := newWorld(t, nil, func(o *Options) { o.ServiceAccount, o.Token = o.Token, "" })
	w.write("the-account")
	w.server.Exchange("the-account", "sandbox-token-one")
	w.server.Configure(configured(1, "a.test"))
	w.run()
	w.applies(0)
	if n := w.server.Calls("IssueSandboxToken"); n != 1 {
		t.Errorf("it was exchanged %d times", n)
	}
	w.server.Exchange("the-account", "sandbox-token-two")
	w.server.Revoke("sandbox-token-one")
	w.server.Configure(configured(2, "b.test"))
	w.applies(1)
	for _, token := range []string{"the-account", "sandbox-token-one", "sandbox-token-two"} {
		if strings.Contains(w.all(), token) {
			t.Errorf("%q was said", token)
		}
	}
}

// TestNoTokenIsSaid: not one that is wrong, and not by a gateway that repeats what it was
// sent.
func TestNoTokenIsSaid(t *testing.T) {
	w := newWorld(t, nil, nil)
	w.write("REALtoken-of-nobody")
	w.run()
	if e := w.event(core.EventGatewayLost, 0); !strings.Contains(e.Detail, "not a token of ours: REDACTED") {
		t.Error(e.Detail)
	}
	w.running()
	w.event(core.EventGatewayFailed, 0)
	w.write("two REALtoken-words")
	n := w.server.Calls("GetSandboxConfig")
	w.server.Called("GetSandboxConfig", n+2)
	if strings.Contains(w.all(), "REALtoken") {
		t.Error(w.all())
	}
}

// TestAFileThatHoldsNoTokenSaysSo, and not what it holds.
func TestAFileThatHoldsNoTokenSaysSo(t *testing.T) {
	file := t.TempDir() + "/token"
	for name, text := range map[string]string{"nothing": " \n", "two lines": "SECRET\nSECRET", "no ASCII": "SECRETé", "too much": strings.Repeat("SECRET", maxToken)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readToken(file); err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), file) || got != "" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestNobodyElseWaitsForAnExchange: what is said of the gateway meanwhile is looked through
// for tokens.
func TestNobodyElseWaitsForAnExchange(t *testing.T) {
	tk := &tokens{file: t.TempDir() + "/token", changed: make(chan struct{}, 1)}
	tk.exchange = func(context.Context) (string, error) {
		if !tk.mu.TryLock() {
			t.Error("whoever says something waits")
			return "", errToken
		}
		tk.mu.Unlock()
		if got := tk.without("account"); got != "REDACTED" {
			t.Error(got)
		}
		return "token", nil
	}
	if err := os.WriteFile(tk.file, []byte("account"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := tk.current(t.Context()); err != nil || got != "token" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestARefreshThatFailsIsSaidOnce, however often it is tried.
func TestARefreshThatFailsIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &buffer{}
		var asked atomic.Int32
		tk := &tokens{now: "opaque", changed: make(chan struct{}, 1), log: slog.New(slog.NewTextHandler(log, nil)), hide: error.Error,
			renew: func(context.Context) (string, error) {
				asked.Add(1)
				return "", status.Error(codes.Unimplemented, "unknown method")
			}}
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Hour)
		defer cancel()
		tk.keep(ctx)
		if n := strings.Count(log.String(), "is not refreshed"); n != 1 || asked.Load() < 2 {
			t.Errorf("%d lines of %d tries", n, asked.Load())
		}
	})
}
