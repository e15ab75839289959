package app

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/export"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/pkg/core"
)

// checks are the conditions of readiness, computed now.
func (d *daemon) checks() []observe.Check {
	generation, digest, quarantine := d.policies.state()
	out := []observe.Check{{
		Name: "policy", OK: generation > 0 && !quarantine,
		Detail: fmt.Sprintf("generation %d, sha256 %s, quarantine %t", generation, digest, quarantine),
	}, {
		Name: "ca", OK: d.ca.Valid(time.Now()),
		Detail: "valid from " + d.ca.Certificate().NotBefore.Format(time.RFC3339) + ", expires " + d.ca.Certificate().NotAfter.Format(time.RFC3339),
	}, d.state.check()}
	if d.advisor.Learning() {
		out = append(out, observe.Check{Name: "learning", OK: true,
			Detail: "public destinations are allowed although no rule allows them, until " + d.advisor.LearnUntil().Format(time.RFC3339)})
	}
	if d.hub == nil {
		return out
	}
	a := d.attach.state()
	peer := observe.Check{Name: "process_daemon", OK: a.peer.Instance != "", Detail: a.peer.Build.String()}
	if !peer.OK {
		peer.Detail = cmp.Or(a.refused, "not attached")
	}
	out = append(out, peer)
	if d.cfg.Listen == "" {
		out = append(out, observe.Check{Name: "listeners", OK: a.serving, Detail: "workload is " + a.workload.Phase.String()})
	}
	return out
}

// metrics registers everything this daemon counts, in a registry of its own.
func (d *daemon) metrics() *prometheus.Registry {
	g := &observe.Values{}
	g.Add(observe.Dropped, func() float64 { return float64(d.record.Stats().Dropped) })
	g.Add(observe.Ungrouped, func() float64 { return float64(d.advisor.Suppressed()) })
	g.Add(observe.Live, func() float64 { return float64(d.live.Count()) })
	g.Add(observe.Open, func() float64 { return float64(d.gauge.Open()) })
	g.Add(observe.Refused, func() float64 { return float64(d.gauge.Refused()) })
	g.Add(observe.BodiesHeld, func() float64 { return float64(d.bodies.Held()) })
	g.Add(observe.BodiesLimit, func() float64 { return float64(d.bodies.Limit()) })
	g.Add(observe.BodiesRefused, func() float64 { return float64(d.bodies.Refused()) })
	g.Add(observe.AnswersUnread, func() float64 { return float64(d.answers.Held()) })
	g.Add(observe.AnswersLimit, func() float64 { return float64(d.answers.Limit()) })
	g.Add(observe.AnswersEnded, func() float64 { return float64(d.http2.Ended()) })
	g.Add(observe.Windows, func() float64 { return float64(d.windows.Held()) })
	g.Add(observe.Unoffered, func() float64 { return float64(d.windows.Unoffered()) })
	g.Add(observe.Generation, func() float64 {
		generation, _, _ := d.policies.state()
		return float64(generation)
	})
	g.Add(observe.Quarantine, func() float64 {
		_, _, quarantine := d.policies.state()
		return observe.Truth(quarantine)
	})
	g.Add(observe.Learning, func() float64 { return observe.Truth(d.advisor.Learning()) })
	g.Add(observe.Proposals, func() float64 { return float64(d.advisor.Stats().Pending) })
	g.Add(observe.StateFree, func() float64 {
		free, err := d.state.free()
		if err != nil {
			return -1
		}
		return float64(free)
	})
	g.Add(observe.CAExpiry, func() float64 { return float64(d.ca.Certificate().NotAfter.Unix()) })
	if d.hub != nil {
		g.Add(observe.PeerAttached, func() float64 { return observe.Truth(d.attach.state().peer.Instance != "") })
		g.Add(observe.Phase, func() float64 { return float64(d.attach.state().workload.Phase) })
	}
	if d.box != nil {
		g.Add(observe.EventsWaiting, func() float64 { return float64(d.box.Stats().Waiting) })
		g.Add(observe.EventsMerged, func() float64 { return float64(d.box.Stats().Undetailed) })
	}
	g.AddAll(observe.CredentialUses, func(emit func(float64, ...string)) {
		for key, n := range d.credentialUses() {
			emit(n, key)
		}
	})
	if d.export != nil {
		g.AddAll(observe.OTLPDropped, func(emit func(float64, ...string)) {
			for _, s := range []export.Signal{export.Logs, export.Traces} {
				emit(float64(d.export.Dropped(s)), s.String())
			}
		})
	}
	return observe.NewRegistry(build(), d.checks, g, d.meter)
}

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

// attached is a snapshot of what is known of the attached process daemon.
type attached struct {
	peer     core.Peer
	workload core.Workload
	serving  bool
	refused  string
}

func (a *attachState) state() attached {
	a.mu.Lock()
	defer a.mu.Unlock()
	return attached{a.peer, a.workload, a.serving, a.refused}
}
