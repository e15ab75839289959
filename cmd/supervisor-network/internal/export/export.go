// Package export sends records to an OpenTelemetry collector, if there is one: each as
// a log record, and each connection or request of this daemon as a span.
//
// It answers the threat of a collector that is slow, gone or hostile: records are
// copied into a bounded queue, one goroutine sends them, what finds no place or is not
// taken is counted, and the data path never waits. It does not make delivery sure:
// records on standard output are complete, these are a copy.
//
// Invariant: trace and span ids are made of our own request ids, so that both daemons'
// records and spans meet; what the workload sent as trace context is linked, never
// continued. Nothing is global, and OTEL_ environment variables choose neither where
// nor how anything is sent.
//
// Sources: OTLP 1.11, OpenTelemetry's semantic conventions for the names it has.
package export

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
)

const (
	maxQueue  = 4096 // records that wait; at most about 8 KiB each
	maxBatch  = 512
	maxParent = 4 // ancestors of a program that are sent
	// batchWait is how long a record may wait for others to be sent with it.
	batchWait = time.Second
	// sendTime bounds everything about one batch, tries again included.
	sendTime = 30 * time.Second
	// endTime bounds what is sent at the end.
	endTime = 5 * time.Second
)

// Signal is what is sent, a closed set.
type Signal int

// The signals.
const (
	Logs Signal = iota
	Traces
	signals
)

// String is the stable text form, used in metrics.
func (s Signal) String() string { return [...]string{"logs", "traces"}[s] }

// Options are what an Exporter works with. Address, Context and Log are required.
type Options struct {
	Address string         // host:port of the collector
	Clear   bool           // without TLS
	Roots   *x509.CertPool // whom its certificate is to be from; nil: the system's roots
	Headers Headers        // what is sent with every request; "": nothing. Not with Clear
	Context ocsf.Context
	Log     *slog.Logger
}

// Exporter sends records. Make it with Open and keep Run going. Record and Dropped are
// safe for concurrent use.
type Exporter struct {
	instance core.InstanceID
	log      *slog.Logger
	queue    chan core.Event
	dropped  [signals]atomic.Uint64

	conn    *grpc.ClientConn
	encoder *ocsf.Encoder
	logger  log.Logger
	tracer  trace.Tracer
	logs    *logBatch
	spans   *spanBatch
	toLogs  *otlploggrpc.Exporter
	toSpans *otlptrace.Exporter
	failing bool // the last batch was not taken
}

// Open prepares to send. It connects to nothing yet.
func Open(opt Options) (*Exporter, error) {
	x := &Exporter{
		instance: opt.Context.Instance, log: opt.Log, queue: make(chan core.Event, maxQueue),
		encoder: ocsf.NewEncoder(opt.Context), logs: &logBatch{}, spans: &spanBatch{},
	}
	if err := x.connect(&opt); err != nil {
		return nil, err
	}
	who := describe(opt.Context)
	const scope = "github.com/splitpod/splitpod/cmd/supervisor-network"
	x.logger = sdklog.NewLoggerProvider(sdklog.WithResource(who), sdklog.WithProcessor(x.logs)).Logger(scope)
	x.tracer = sdktrace.NewTracerProvider(sdktrace.WithResource(who), sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithIDGenerator(ids{}),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: -1, AttributeCountLimit: 64, LinkCountLimit: 1, AttributePerLinkCountLimit: 1}),
		sdktrace.WithSpanProcessor(x.spans)).Tracer(scope)
	return x, nil
}

func describe(c ocsf.Context) *resource.Resource {
	attrs := []attribute.KeyValue{
		attribute.String("service.name", c.Build.Component), attribute.String("service.version", c.Build.Version),
		attribute.String("service.instance.id", string(c.Instance)), attribute.String("host.name", c.Hostname),
	}
	for key, value := range map[string]string{"k8s.pod.name": c.Sandbox, "k8s.pod.uid": c.SandboxUID, "container.image.name": c.Image} {
		if value != "" {
			attrs = append(attrs, attribute.String(key, value))
		}
	}
	return resource.NewSchemaless(attrs...)
}

// Record takes a copy of an event, or counts it as dropped.
func (x *Exporter) Record(e *core.Event) {
	c := *e
	c.Ancestors = c.Ancestors[:min(len(c.Ancestors), maxParent)]
	select {
	case x.queue <- c:
	default:
		x.dropped[Logs].Add(1)
		if x.spanned(e) {
			x.dropped[Traces].Add(1)
		}
	}
}

// Dropped is how many log records or spans found no place, or were not taken.
func (x *Exporter) Dropped(s Signal) uint64 { return x.dropped[s].Load() }

// Run sends until ctx ends, then what is left, as far as there is time.
func (x *Exporter) Run(ctx context.Context) error {
	defer x.conn.Close()
	for {
		more := x.gather(ctx)
		if !more {
			break
		}
		x.send(context.WithoutCancel(ctx), ctx, sendTime)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	for x.rest() {
		x.send(last, last, endTime)
	}
	return nil
}

// gather waits for a batch. It returns false when ctx has ended.
func (x *Exporter) gather(ctx context.Context) bool {
	select {
	case e := <-x.queue:
		x.convert(&e)
	case <-ctx.Done():
		return false
	}
	due := time.NewTimer(batchWait)
	defer due.Stop()
	for len(x.logs.records) < maxBatch {
		select {
		case e := <-x.queue:
			x.convert(&e)
		case <-due.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// rest fills the last batches without waiting, and reports whether there is one.
func (x *Exporter) rest() bool {
	for len(x.logs.records) < maxBatch {
		select {
		case e := <-x.queue:
			x.convert(&e)
		default:
			return len(x.logs.records) > 0
		}
	}
	return true
}

// send sends a batch. When hurry ends, it has endTime left.
func (x *Exporter) send(ctx, hurry context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(hurry, func() { time.AfterFunc(endTime, cancel) })()
	errLogs := x.toLogs.Export(ctx, x.logs.records)
	if errLogs != nil {
		x.dropped[Logs].Add(uint64(len(x.logs.records)))
	}
	var errSpans error
	if len(x.spans.ended) > 0 {
		if errSpans = x.toSpans.ExportSpans(ctx, x.spans.ended); errSpans != nil {
			x.dropped[Traces].Add(uint64(len(x.spans.ended)))
		}
	}
	x.logs.clear()
	x.spans.clear()
	x.tell(errors.Join(errLogs, errSpans))
}

// tell logs when the collector stops and begins to take what is sent.
func (x *Exporter) tell(err error) {
	switch {
	case err != nil && !x.failing:
		x.log.Warn("records are not taken by the collector", slog.Any("error", err))
	case err == nil && x.failing:
		x.log.Info("records are taken by the collector again")
	}
	x.failing = err != nil
}
