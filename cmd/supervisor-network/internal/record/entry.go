package record

import (
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Entry is the record of one connection while it is being handled. It belongs to
// one goroutine.
type Entry struct {
	Event   core.Event
	r       *Recorder
	started time.Time
	written bool
	used    map[string]int // credentials by key
	echoed  int
}

// Begin opens the record of a connection that was accepted at started. Until
// something better is known it is an internal error that denied.
func (r *Recorder) Begin(id core.RequestID, started time.Time) *Entry {
	e := &Entry{}
	r.BeginIn(e, id, started)
	return e
}

// BeginIn is Begin in the memory of an entry that was written, or never begun.
func (r *Recorder) BeginIn(e *Entry, id core.RequestID, started time.Time) {
	if e.r != nil && !e.written {
		panic("BUG: a record is begun in the place of one that was not written")
	}
	*e = Entry{} // and not the literal, which would lie on the stack of every connection
	e.r, e.started = r, started
	ev := &e.Event
	ev.Kind, ev.RequestID, ev.Instance = core.EventConnection, id, r.instance
	ev.Stage, ev.Severity, ev.Protocol, ev.Reason = core.StageListen, core.SeverityMedium, "tcp", core.ReasonInternal
}

// Who notes the identity.
func (e *Entry) Who(who core.Identity) {
	e.Event.Process, e.Event.UID, e.Event.Program, e.Event.Ancestors = who.Process, who.UID, who.Program, who.Ancestors
}

// Deny writes the record of a refusal. It returns when the record is written (or
// after a short bound), so that the answer to the workload comes after it.
func (e *Entry) Deny(stage core.Stage, reason core.Reason, detail string) {
	e.Event.Verdict, e.Event.Stage, e.Event.Reason, e.Event.Detail = core.Deny, stage, reason, detail
	e.Event.Severity = severityOf(reason)
	e.write(true)
}

// Allow notes that the connection was allowed by rule; the record is written by
// End, when its sizes are known.
func (e *Entry) Allow(stage core.Stage, rule string, generation core.Generation) {
	e.Event.Verdict, e.Event.Stage, e.Event.Reason = core.Allow, stage, core.ReasonAllowed
	e.Event.Severity = core.SeverityInfo
	e.Event.Rule, e.Event.Generation = rule, generation
}

// Fail notes how an allowed connection went wrong; it stays allowed.
func (e *Entry) Fail(reason core.Reason, detail string) {
	e.Event.Reason, e.Event.Detail, e.Event.Severity = reason, detail, core.SeverityLow
}

// End writes the record unless a refusal was written already. Call it by defer.
func (e *Entry) End() { e.write(false) }

// Drop leaves no record: others have left theirs for everything it would tell.
func (e *Entry) Drop() { e.written = true }

func (e *Entry) write(wait bool) {
	if e.written {
		return
	}
	e.written = true
	e.noteCredentials()
	e.Event.Time = e.r.now()
	e.Event.Duration = e.Event.Time.Sub(e.started)
	e.r.count(&e.Event)
	if e.Event.Verdict == core.Allow {
		e.r.later(&e.Event)
		return
	}
	e.r.record(&e.Event, wait)
	if e.r.box != nil {
		e.r.box.Add(e.Event) // after it is on record here, in case this daemon ends in between
	}
}

func severityOf(reason core.Reason) core.Severity {
	switch reason {
	case core.ReasonClientClosed, core.ReasonUpstreamUnreachable, core.ReasonUpstreamTimeout, core.ReasonNotReady, core.ReasonRequestTimeout:
		return core.SeverityLow
	case core.ReasonAuthorityMismatch, core.ReasonCredentialMismatch, core.ReasonUninspectedCredentials:
		return core.SeverityHigh // somebody would have used what is not theirs to use there
	default:
		return core.SeverityMedium
	}
}
