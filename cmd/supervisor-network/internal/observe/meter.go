package observe

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/splitpod/splitpod/pkg/core"
)

// Meter counts what the data path does. Make it with NewMeter. Its methods may be
// called from several goroutines, take no lock and allocate nothing.
type Meter struct {
	decisions [len(protocols)][2][]atomic.Uint64 // by protocol, verdict and index of the reason
	durations [len(protocols)]prometheus.Observer
	dials     [2]prometheus.Observer
	hands     [2][2]prometheus.Observer
	sent      atomic.Uint64
	received  atomic.Uint64
	records   atomic.Uint64
	tunnels   atomic.Int64
	loads     [2]atomic.Uint64
	refusedAt atomic.Int64 // UnixNano of the policy file that is not in force; 0: it is
	peer      [core.EventLifecycle + 1]atomic.Uint64
	told      []atomic.Uint64 // the peer's findings, by index of the event's reason
	admin     []atomic.Uint64 // by index of the reason in adminReasons
	findings  []atomic.Uint64 // by index of the event's reason
	models    sync.Map        // model of an inference route → *model

	histograms []prometheus.Collector
}

// protocols are what a connection or request was: what was read of it at most.
var protocols = [...]string{"tunnel", "http", "rest", "graphql", "websocket", "json-rpc", "mcp", "unread"}

// protocolOf is an event's index in protocols.
func protocolOf(e *core.Event) int {
	switch e.Application {
	case core.ApplicationREST:
		return 2
	case core.ApplicationGraphQL:
		return 3
	case core.ApplicationWebSocket:
		return 4
	case core.ApplicationJSONRPC:
		return 5
	case core.ApplicationMCP:
		return 6
	}
	switch {
	case e.Method != "":
		return 1
	case e.Stage == core.StageListen:
		return 7
	default:
		return 0
	}
}

// closed is a closed set of reasons: whatever else comes is counted as other.
type closed struct {
	names []string
	index map[core.Reason]int
}

func closedSet(reasons []core.Reason) closed {
	c := closed{index: make(map[core.Reason]int)}
	for i, r := range reasons {
		c.names = append(c.names, string(r))
		c.index[r] = i
	}
	c.names = append(c.names, "other")
	return c
}

func (c *closed) of(r core.Reason) int {
	if i, ok := c.index[r]; ok {
		return i
	}
	return len(c.names) - 1
}

var (
	verdictReasons = closedSet(core.Reasons())
	eventReasons   = closedSet(append(core.EventReasons(), core.Reasons()...))
	adminReasons   = closedSet([]core.Reason{core.EventAdminTokenMissing, core.EventAdminTokenWrong, core.EventAdminTokenUnread, core.EventAdminRefused})
	results        = [...]string{"ok", "failed"}
	sides          = [...]string{"workload", "origin"}
	directions     = [...]string{"sent", "received"}
	loadResults    = [...]string{"loaded", "refused"}
)

// NewMeter makes a Meter.
func NewMeter() *Meter {
	m := &Meter{admin: make([]atomic.Uint64, len(adminReasons.names))}
	m.findings, m.told = make([]atomic.Uint64, len(eventReasons.names)), make([]atomic.Uint64, len(eventReasons.names))
	durations, dials, hands := histogram(Durations), histogram(Dials), histogram(Handshakes)
	m.histograms = []prometheus.Collector{durations, dials, hands}
	for i, p := range protocols {
		m.durations[i] = durations.WithLabelValues(p)
		for v := range m.decisions[i] {
			m.decisions[i][v] = make([]atomic.Uint64, len(verdictReasons.names))
		}
	}
	for i, r := range results {
		m.dials[i] = dials.WithLabelValues(r)
		for s, side := range sides {
			m.hands[s][i] = hands.WithLabelValues(side, r)
		}
	}
	return m
}

// histogram is native, and has few classic buckets for those that read text.
func histogram(m Metric) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: m.Name, Help: m.Help, Buckets: []float64{.001, .01, .1, 1, 10, 60, 600},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}, m.Labels)
}

// Record counts what one record tells.
func (m *Meter) Record(e *core.Event, own core.InstanceID) {
	m.records.Add(1)
	switch {
	case e.Instance != own:
		m.ofPeer(e)
	case e.Kind == core.EventConnection:
		m.connection(e)
	case e.Kind == core.EventInference:
		m.call(e)
	case e.Kind == core.EventFinding:
		m.findings[eventReasons.of(e.Reason)].Add(e.Occurrences())
		if e.Reason == core.EventPolicyInvalid {
			m.loads[1].Add(1)
			m.refusedAt.Store(time.Now().UnixNano())
		}
	case e.Reason == core.EventPolicyLoaded:
		m.loads[0].Add(1)
		m.refusedAt.Store(0)
	}
}

func (m *Meter) ofPeer(e *core.Event) {
	if int(e.Kind) < len(m.peer) {
		m.peer[e.Kind].Add(e.Occurrences())
	}
	if e.Kind == core.EventFinding {
		m.told[eventReasons.of(e.Reason)].Add(e.Occurrences())
	}
}

func (m *Meter) connection(e *core.Event) {
	p, verdict := protocolOf(e), 0
	if e.Verdict == core.Allow {
		verdict = 1
		m.durations[p].Observe(e.Duration.Seconds())
	}
	m.decisions[p][verdict][verdictReasons.of(e.Reason)].Add(e.Occurrences())
	m.sent.Add(e.BytesUp)
	m.received.Add(e.BytesDn)
}

// model is what was asked of one model.
type model struct {
	calls   [6]atomic.Uint64 // by the first digit of the status
	in, out atomic.Uint64
}

func (m *Meter) call(e *core.Event) {
	v, ok := m.models.Load(e.Model)
	if !ok {
		v, _ = m.models.LoadOrStore(e.Model, &model{})
	}
	of := v.(*model)
	of.calls[min(max(e.Status, 0)/100, len(of.calls)-1)].Add(1)
	of.in.Add(e.TokensIn)
	of.out.Add(e.TokensOut)
}

// ofModels emits what is counted of each model.
func (m *Meter) ofModels(emit func(name string, of *model)) {
	m.models.Range(func(name, of any) bool {
		emit(name.(string), of.(*model))
		return true
	})
}

// Dialled counts an attempt to reach a destination that took d.
func (m *Meter) Dialled(d time.Duration, err error) { m.dials[failed(err)].Observe(d.Seconds()) }

// WorkloadHandshake counts a TLS handshake with the workload that took d.
func (m *Meter) WorkloadHandshake(d time.Duration, err error) {
	m.hands[0][failed(err)].Observe(d.Seconds())
}

// OriginHandshake counts a TLS handshake with an origin that took d.
func (m *Meter) OriginHandshake(d time.Duration, err error) {
	m.hands[1][failed(err)].Observe(d.Seconds())
}

// AdminRefused counts who was not answered on the admin address or socket.
func (m *Meter) AdminRefused(r core.Reason) { m.admin[adminReasons.of(r)].Add(1) }

// Tunnel counts a raw tunnel until the returned function is called.
func (m *Meter) Tunnel() (end func()) {
	m.tunnels.Add(1)
	return func() { m.tunnels.Add(-1) }
}

// Tunnels is the number of raw tunnels now.
func (m *Meter) Tunnels() int64 { return m.tunnels.Load() }

func failed(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// Register registers everything the Meter counts.
func (m *Meter) Register(r *prometheus.Registry) {
	r.MustRegister(m.histograms...)
	g := &Values{}
	g.AddAll(Decisions, m.emitDecisions)
	g.AddAll(Denials, m.emitDenials)
	g.Add(Allowed, m.allowed)
	g.Add(Records, func() float64 { return float64(m.records.Load()) })
	g.Add(Tunnels, func() float64 { return float64(m.tunnels.Load()) })
	g.AddAll(Traffic, func(emit func(float64, ...string)) {
		emit(float64(m.sent.Load()), directions[0])
		emit(float64(m.received.Load()), directions[1])
	})
	g.AddAll(ModelCalls, func(emit func(float64, ...string)) {
		m.ofModels(func(name string, of *model) {
			for class := range of.calls {
				if n := of.calls[class].Load(); n > 0 {
					emit(float64(n), name, strconv.Itoa(class)+"xx")
				}
			}
		})
	})
	g.AddAll(ModelTokens, func(emit func(float64, ...string)) {
		m.ofModels(func(name string, of *model) {
			emit(float64(of.in.Load()), name, "in")
			emit(float64(of.out.Load()), name, "out")
		})
	})
	g.AddAll(Loads, func(emit func(float64, ...string)) {
		for i := range m.loads {
			emit(float64(m.loads[i].Load()), loadResults[i])
		}
	})
	g.Add(RefusedAt, func() float64 { return float64(m.refusedAt.Load()) / 1e9 })
	g.AddAll(PeerEvents, func(emit func(float64, ...string)) {
		for k := range m.peer {
			emit(float64(m.peer[k].Load()), core.EventKind(k).String())
		}
	})
	g.AddAll(AdminRefused, func(emit func(float64, ...string)) {
		for i, name := range adminReasons.names[:len(adminReasons.names)-1] { // other never is
			emit(float64(m.admin[i].Load()), name)
		}
	})
	g.AddAll(PeerFindings, func(emit func(float64, ...string)) { emitFindings(m.told, emit) })
	g.AddAll(Findings, func(emit func(float64, ...string)) { emitFindings(m.findings, emit) })
	r.MustRegister(g)
}

func emitFindings(counts []atomic.Uint64, emit func(float64, ...string)) {
	for i, name := range eventReasons.names {
		if n := counts[i].Load(); n > 0 {
			emit(float64(n), name)
		}
	}
}

func (m *Meter) emitDecisions(emit func(float64, ...string)) {
	for p, byVerdict := range m.decisions {
		for v, byReason := range byVerdict {
			for i := range byReason {
				if n := byReason[i].Load(); n > 0 {
					emit(float64(n), protocols[p], core.Verdict(v).String(), verdictReasons.names[i])
				}
			}
		}
	}
}

// emitDenials emits every reason from the start: no increase is seen of a series that
// begins with its first refusal.
func (m *Meter) emitDenials(emit func(float64, ...string)) {
	for i, name := range verdictReasons.names {
		if name == string(core.ReasonAllowed) {
			continue
		}
		n := uint64(0)
		for p := range m.decisions {
			n += m.decisions[p][0][i].Load()
		}
		emit(float64(n), name)
	}
}

func (m *Meter) allowed() float64 {
	n := uint64(0)
	for p := range m.decisions {
		for i := range m.decisions[p][1] {
			n += m.decisions[p][1][i].Load()
		}
	}
	return float64(n)
}
