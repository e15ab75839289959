package app

import (
	"fmt"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/observe"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/page"
)

// admin is what answers operators, with the live view for those in this pod.
func (d *daemon) admin() *observe.Server {
	s := observe.New(d.metrics(), d.checks)
	token := page.Token(d.cfg.AdminToken)
	w := &waiting{of: d.advisor, decide: token != ""}
	h := page.New(func() *view.Snapshot { return d.window.Snapshot(d.viewState(), w.proposals()) }, page.Options{Token: token, Decide: d.decider(w), Refused: d.refusals.page})
	s.Handle("GET /", h)
	s.Handle("POST /decision", h)
	return s
}

// checkToken refuses to start with a token that nobody could show.
func (d *daemon) checkToken() error {
	if d.cfg.AdminToken == "" {
		return nil
	}
	if err := page.Token(d.cfg.AdminToken).Check(); err != nil {
		return fmt.Errorf("--admin-token: %w", err)
	}
	return nil
}

func (d *daemon) viewState() view.State {
	generation, digest, quarantine := d.policies.state()
	checks := d.checks()
	s := view.State{
		Build: Build().String(), Instance: string(d.instance), Ready: observe.Holds(checks), Learning: d.advisor.Learning(),
		Policy:      view.Policy{Generation: generation, Digest: digest, Quarantine: quarantine},
		Connections: d.gauge.Open(), Live: d.live.Count(), Tunnels: d.meter.Tunnels(),
		Active: d.live.Active(), Decides: d.cfg.AdminToken != "",
		Refused: d.gauge.Refused(), Dropped: d.record.Stats().Dropped,
	}
	for _, c := range checks {
		s.Checks = append(s.Checks, view.Check(c))
	}
	if d.hub != nil {
		a := d.attach.state()
		s.Peer = &view.Peer{Attached: a.peer.Instance != "", Serving: a.serving, Workload: a.workload.Phase.String()}
		if s.Peer.Attached {
			s.Peer.Build = a.peer.Build.String()
		}
	}
	return s
}
