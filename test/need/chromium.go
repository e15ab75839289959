package need

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Chromium needs the browser, and returns what runs it to its end on a page and returns
// its output. On a busy machine it may hang in its own affairs: then it is run again.
func Chromium(t testing.TB) (browse func(size, what, url string) string) {
	t.Helper()
	path := Program(t, "chromium")
	return func(size, what, url string) string {
		t.Helper()
		for tries := 1; ; tries++ {
			out, errs, err, hung := chromium(t, path, "--window-size="+size, what, url)
			switch {
			case err == nil:
				return out
			case !hung || tries == 3:
				t.Fatalf("chromium, try %d: %v: %s", tries, err, errs)
			}
		}
	}
}

func chromium(t testing.TB, path string, args ...string) (out, errs string, err error, hung bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir=" + Folder(t), "--virtual-time-budget=3000"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+Folder(t))
	cmd.WaitDelay = time.Second // its children have its output, too
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err, ctx.Err() != nil
}
