package observe

import "github.com/prometheus/client_golang/prometheus"

// Kind is what a metric is.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram" // native, with classic buckets for text
)

// Metric is one thing that is measured. The page docs/metrics.md is written from the
// variables of this type.
type Metric struct {
	Kind   Kind
	Name   string
	Help   string
	Labels []string // each from a closed set
}

func (m Metric) desc() *prometheus.Desc {
	return prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
}

func (m Metric) value(v float64, labels ...string) prometheus.Metric {
	kind := prometheus.GaugeValue
	if m.Kind == Counter {
		kind = prometheus.CounterValue
	}
	return prometheus.MustNewConstMetric(m.desc(), kind, v, labels...)
}

// Values is a prometheus.Collector whose values are read when they are asked for, so
// that nothing is counted twice in two places.
type Values struct {
	metrics []Metric
	read    []func(emit func(v float64, labels ...string))
}

// Add registers a metric without labels that f reads; counters only ever grow.
func (g *Values) Add(m Metric, f func() float64) {
	g.AddAll(m, func(emit func(float64, ...string)) { emit(f()) })
}

// AddAll registers a metric whose values f emits, each with its labels.
func (g *Values) AddAll(m Metric, f func(emit func(v float64, labels ...string))) {
	g.metrics = append(g.metrics, m)
	g.read = append(g.read, f)
}

// Describe implements prometheus.Collector.
func (g *Values) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range g.metrics {
		ch <- m.desc()
	}
}

// Collect implements prometheus.Collector.
func (g *Values) Collect(ch chan<- prometheus.Metric) {
	for i, m := range g.metrics {
		g.read[i](func(v float64, labels ...string) { ch <- m.value(v, labels...) })
	}
}
