package app

import (
	"cmp"
	"fmt"
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
	if d.gateway != nil {
		out = append(out, observe.Check{Name: "gateway", OK: true, Detail: d.gateway.State().String()})
	}
	if d.hub == nil {
		return out
	}
	a := d.attach.state()
	peer := observe.Check{Name: "process_daemon", OK: a.peer.Instance != "", Detail: a.peer.Build.String()}
	if !peer.OK {
		peer.Detail = cmp.Or(a.refused, "not attached")
	}
	sockets := observe.Check{Name: "sockets", OK: true, Detail: d.cfg.RunDir}
	if err := d.hub.Reachable(); err != nil {
		sockets.OK, sockets.Detail = false, err.Error()
	}
	out = append(out, peer, sockets)
	if d.cfg.Listen == "" {
		served := observe.Check{Name: "listeners", OK: a.serving, Detail: "workload is " + a.workload.Phase.String()}
		if !a.serving && a.unserved != "" {
			served.Detail += "; " + a.unserved
		}
		out = append(out, served)
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
	if d.gateway != nil {
		g.Add(observe.GatewayAnswered, func() float64 {
			if at := d.gateway.State().Answered; !at.IsZero() {
				return float64(at.UnixMilli()) / 1000
			}
			return 0
		})
		g.Add(observe.GatewaySession, func() float64 { return observe.Truth(d.gateway.State().Session) })
		g.Add(observe.GatewayRelays, func() float64 { return float64(d.gateway.State().Relays) })
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
	return observe.NewRegistry(Build(), d.checks, g, d.meter)
}

// attached is a snapshot of what is known of the attached process daemon.
type attached struct {
	peer     core.Peer
	workload core.Workload
	serving  bool
	unserved string
	refused  string
}

func (a *attachState) state() attached {
	a.mu.Lock()
	defer a.mu.Unlock()
	return attached{a.peer, a.workload, a.serving, a.unserved, a.refused}
}
