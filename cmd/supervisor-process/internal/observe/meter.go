package observe

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/splitpod/splitpod/pkg/core"
)

// Meter counts what this daemon records. Make it with NewMeter. Its methods may be
// called from several goroutines.
type Meter struct {
	records  atomic.Uint64
	bypass   [len(protocols)]atomic.Uint64
	peer     [core.EventLifecycle + 1]atomic.Uint64
	findings []atomic.Uint64 // by index of the reason
}

// protocols are those of refused packets.
var protocols = [...]string{"tcp", "udp", "icmp", "icmpv6", "other", "unknown"}

func protocolOf(name string) int {
	if name == "" {
		return len(protocols) - 1
	}
	for i, p := range protocols[:4] {
		if p == name {
			return i
		}
	}
	return 4
}

// reasons are the closed set of findings' reasons; whatever else comes is other.
var reasons = append(core.EventReasons(), core.Reasons()...)

func reasonOf(r core.Reason) int {
	for i, known := range reasons {
		if known == r {
			return i
		}
	}
	return len(reasons)
}

// NewMeter makes a Meter.
func NewMeter() *Meter { return &Meter{findings: make([]atomic.Uint64, len(reasons)+1)} }

// Record counts what one record tells.
func (m *Meter) Record(e *core.Event, own core.InstanceID) {
	m.records.Add(1)
	switch {
	case e.Instance != own:
		if int(e.Kind) < len(m.peer) {
			m.peer[e.Kind].Add(e.Occurrences())
		}
	case e.Kind == core.EventBypass:
		m.bypass[protocolOf(e.Protocol)].Add(e.Occurrences())
	case e.Kind == core.EventFinding:
		m.findings[reasonOf(e.Reason)].Add(e.Occurrences())
	}
}

// Register registers everything the Meter counts.
func (m *Meter) Register(r *prometheus.Registry) {
	g := &Values{}
	g.Add(Records, func() float64 { return float64(m.records.Load()) })
	g.AddAll(Bypass, func(emit func(float64, ...string)) {
		for i, p := range protocols {
			emit(float64(m.bypass[i].Load()), p)
		}
	})
	g.AddAll(PeerEvents, func(emit func(float64, ...string)) {
		for k := range m.peer {
			emit(float64(m.peer[k].Load()), core.EventKind(k).String())
		}
	})
	g.AddAll(Findings, func(emit func(float64, ...string)) {
		for i := range m.findings {
			name := "other"
			if i < len(reasons) {
				name = string(reasons[i])
			}
			if n := m.findings[i].Load(); n > 0 {
				emit(float64(n), name)
			}
		}
	})
	r.MustRegister(g)
}
