package command

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/config"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/page"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/terminal"
)

// maxView bounds what is read of one answer; a full view is a tenth of it.
const maxView = 4 << 20

// watcher shows the live view of a running daemon, again every second.
type watcher struct {
	url    string
	token  page.Token
	client *http.Client
	out    io.Writer
	errs   io.Writer
	screen *os.File // a terminal; nil: lines are written

	trouble string // with the answer before; empty: none
}

// watchCommand shows what a running daemon does: a screen on a terminal, a line a
// second elsewhere.
func watchCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("supervisor-network watch", flag.ContinueOnError)
	fs.SetOutput(stderr)
	w := &watcher{client: &http.Client{Transport: &http.Transport{}}, out: stdout, errs: stderr} // no proxy: this is a local question
	cfg, _, err := config.Load("supervisor-network watch", nil, config.Environ())
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
		return exitUsage
	}
	fs.StringVar((*string)(&w.token), "token", cfg.AdminToken, "file of the admin token, if the daemon has one")
	fs.StringVar(&w.url, "url", "http://127.0.0.1:9901/view.json", "what to ask")
	count := fs.Uint64("count", 0, "end after this many answers or failures; 0: go on until interrupted")
	if err := fs.Parse(args); err != nil {
		return exitUsage
	}
	if err := askable(fs, w.url); err != nil {
		fmt.Fprintf(stderr, "supervisor-network: watch: %v\n", err)
		return exitUsage
	}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		w.screen = f
		fmt.Fprint(stdout, terminal.Enter)
		defer fmt.Fprint(stdout, terminal.Leave)
	}
	return w.run(ctx, *count)
}

// run ends with the last answer's fate. A daemon that is not there yet, or is
// restarted, is waited for.
func (w *watcher) run(ctx context.Context, count uint64) int {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		s, err := w.ask(ctx)
		if ctx.Err() != nil {
			return exitOK
		}
		w.show(s, err)
		if n == count {
			if err != nil {
				return exitFailed
			}
			return exitOK
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return exitOK
		}
	}
}

// show shows one answer; without a screen, the same trouble only once in a row.
func (w *watcher) show(s *view.Snapshot, err error) {
	trouble := ""
	if err != nil {
		trouble = view.Visible(err.Error())
	}
	again := trouble == w.trouble
	w.trouble = trouble
	switch {
	case w.screen == nil && err != nil && again:
	case w.screen == nil && err != nil:
		fmt.Fprintf(w.errs, "supervisor-network: %s\n", trouble)
	case w.screen == nil:
		fmt.Fprintln(w.out, terminal.Line(s))
	default:
		width, height, sizeErr := term.GetSize(int(w.screen.Fd()))
		if sizeErr != nil || width <= 0 || height <= 0 {
			width, height = 80, 24
		}
		if err != nil {
			fmt.Fprint(w.out, terminal.Trouble(err, width))
			return
		}
		fmt.Fprint(w.out, terminal.Screen(s, width, height))
	}
}

func (w *watcher) ask(ctx context.Context) (*view.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return nil, err
	}
	if w.token != "" {
		bearer, err := w.token.Bearer()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", bearer)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, unanswered(w.url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxView+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the daemon answers %d: %.200s", resp.StatusCode, strings.TrimSpace(string(body)))
	case len(body) > maxView:
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxView)
	}
	s := new(view.Snapshot)
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("what is at %s is no view, which is at /view.json: %w", w.url, err)
	}
	return s, nil
}
