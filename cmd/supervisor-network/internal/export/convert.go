package export

import (
	"bytes"
	"context"
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/splitpod/splitpod/pkg/core"
)

// convert puts an event into the batches.
func (x *Exporter) convert(e *core.Event) {
	attrs := attributes(e)
	x.emit(e, attrs)
	if x.spanned(e) {
		x.span(e, attrs)
	}
}

// spanned reports whether an event is a span too: one of our own connections or
// requests.
func (x *Exporter) spanned(e *core.Event) bool {
	return e.Kind == core.EventConnection && e.Instance == x.instance && e.RequestID.Valid()
}

// emit makes a log record, whose body is the record as it is written elsewhere.
func (x *Exporter) emit(e *core.Event, attrs []attribute.KeyValue) {
	var r log.Record
	r.SetTimestamp(e.Time)
	r.SetEventName("splitpod." + e.Kind.String())
	r.SetSeverity(severities[min(int(e.Severity), len(severities)-1)])
	r.SetBody(attribute.StringValue(string(bytes.TrimSuffix(x.encoder.Append(nil, e), []byte("\n")))))
	r.AddAttributes(attrs...)
	x.logger.Emit(trace.ContextWithSpanContext(context.Background(), contextOf(e.RequestID)), r)
}

var severities = [...]log.Severity{log.SeverityUndefined, log.SeverityInfo, log.SeverityInfo2, log.SeverityWarn, log.SeverityError, log.SeverityFatal}

// span makes a span of what is over.
func (x *Exporter) span(e *core.Event, attrs []attribute.KeyValue) {
	name := strings.ToValidUTF8(e.Method, "\ufffd")
	if name == "" {
		name = string(e.Stage)
	}
	opts := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(e.Time.Add(-e.Duration)), trace.WithAttributes(attrs...)}
	if link, ok := linkOf(e.TraceParent); ok {
		opts = append(opts, trace.WithLinks(link))
	}
	_, s := x.tracer.Start(context.WithValue(context.Background(), requestKey{}, e.RequestID), name, opts...)
	if e.Verdict != core.Allow || e.Reason != core.ReasonAllowed {
		s.SetStatus(codes.Error, string(e.Reason))
	}
	s.End(trace.WithTimestamp(e.Time))
}

// attributes are what is searched by. They are bounded by Event.Clip.
func attributes(e *core.Event) []attribute.KeyValue {
	out := []attribute.KeyValue{attribute.String("splitpod.verdict", e.Verdict.String())}
	text := func(key, value string) {
		if value != "" {
			out = append(out, attribute.String(key, strings.ToValidUTF8(value, "\ufffd")))
		}
	}
	number := func(key string, value int64) {
		if value != 0 {
			out = append(out, attribute.Int64(key, value))
		}
	}
	text("splitpod.reason", string(e.Reason))
	text("splitpod.stage", string(e.Stage))
	text("splitpod.request_id", string(e.RequestID))
	text("splitpod.rule", e.Rule)
	number("splitpod.policy_generation", int64(e.Generation))
	number("splitpod.count", int64(e.Count))
	text("splitpod.application", string(e.Application))
	text("server.address", e.Host)
	number("server.port", int64(e.Port))
	text("network.peer.address", e.Address)
	text("network.transport", e.Protocol)
	text("http.request.method", e.Method)
	text("url.path", e.Path)
	number("http.response.status_code", int64(e.Status))
	text("process.executable.path", e.Program.Path)
	number("process.pid", int64(e.Process.PID))
	number("splitpod.bytes_sent", int64(e.BytesUp))
	number("splitpod.bytes_received", int64(e.BytesDn))
	return out
}

// contextOf is where a request's records and span belong; nothing for an id that is
// none.
func contextOf(id core.RequestID) trace.SpanContext {
	if !id.Valid() {
		return trace.SpanContext{}
	}
	traceID, spanID := idsOf(id)
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled})
}

func idsOf(id core.RequestID) (t trace.TraceID, s trace.SpanID) {
	_, _ = hex.Decode(t[:], []byte(id.Trace())) // Valid has checked it
	_, _ = hex.Decode(s[:], []byte(id))
	return t, s
}

// linkOf is the workload's own trace context, as core.ParseTraceParent has let it
// through.
func linkOf(parent string) (trace.Link, bool) {
	if core.ParseTraceParent(parent) == "" {
		return trace.Link{}, false
	}
	var c trace.SpanContextConfig
	_, _ = hex.Decode(c.TraceID[:], []byte(parent[3:35]))
	_, _ = hex.Decode(c.SpanID[:], []byte(parent[36:52]))
	c.Remote = true
	return trace.Link{SpanContext: trace.NewSpanContext(c)}, true
}

type requestKey struct{}

// ids is an sdktrace.IDGenerator that gives a request's span the request's own ids.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, _ := ctx.Value(requestKey{}).(core.RequestID)
	return idsOf(id)
}

func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	_, s := ids{}.NewIDs(ctx)
	return s
}

// logBatch is an sdklog.Processor that keeps what is emitted. It belongs to the
// goroutine of Run, as spanBatch does.
type logBatch struct{ records []sdklog.Record }

func (b *logBatch) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }
func (b *logBatch) OnEmit(_ context.Context, r *sdklog.Record) error {
	b.records = append(b.records, r.Clone())
	return nil
}
func (b *logBatch) Shutdown(context.Context) error   { return nil }
func (b *logBatch) ForceFlush(context.Context) error { return nil }

func (b *logBatch) clear() {
	clear(b.records)
	b.records = b.records[:0]
}

// spanBatch is an sdktrace.SpanProcessor that keeps what has ended.
type spanBatch struct{ ended []sdktrace.ReadOnlySpan }

func (b *spanBatch) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (b *spanBatch) OnEnd(s sdktrace.ReadOnlySpan)                   { b.ended = append(b.ended, s) }
func (b *spanBatch) Shutdown(context.Context) error                  { return nil }
func (b *spanBatch) ForceFlush(context.Context) error                { return nil }

func (b *spanBatch) clear() {
	clear(b.ended)
	b.ended = b.ended[:0]
}
