package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// healthCommand asks a running daemon, for probes in images without a client.
func healthCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("supervisor-network healthcheck", flag.ContinueOnError)
	fs.SetOutput(stderr)
	at := fs.String("url", "http://127.0.0.1:9901/readyz?verbose", "what to ask")
	if err := fs.Parse(args); err != nil {
		return exitUsage
	}
	if err := askable(fs, *at); err != nil {
		fmt.Fprintf(stderr, "supervisor-network: healthcheck: %v\n", err)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, *at, nil)
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", err)
		return exitUsage
	}
	client := &http.Client{Transport: &http.Transport{}} // no proxy: this is a local question
	resp, err := client.Do(req)
	if err != nil {
		fmt.Fprintf(stderr, "supervisor-network: %v\n", unanswered(*at, err))
		return exitFailed
	}
	defer resp.Body.Close()
	_, _ = io.Copy(stdout, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return exitFailed
	}
	return exitOK
}

// askable refuses arguments, and what is no URL to ask a daemon by.
func askable(fs *flag.FlagSet, text string) error {
	if fs.NArg() > 0 {
		return fmt.Errorf("it takes no argument %q", fs.Arg(0))
	}
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("--url %q: want http://HOST:PORT/PATH", text)
	}
	return nil
}

// unanswered says in words that a running daemon was not reached.
func unanswered(asked string, err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fmt.Errorf("no daemon answers at %s, which is --admin-listen of serve: %w", asked, err)
}
