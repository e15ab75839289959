package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// policies turns what is known about the policy (its file, and what its binaries
// resolve to in the workload) into the snapshot that decides, and says what the
// process daemon has to know. Every change goes through here, one at a time.
type policies struct {
	ignoreBinaries bool // binary rules count as satisfied
	refuseBinaries bool // a policy with binary rules is refused
	denyOnInvalid  bool
	engine         *decide.Engine
	publish        func(core.Config)      // to the process daemon
	changed        func(*decide.Snapshot) // after a new snapshot decides
	event          func(core.Event)       // records
	base           core.Config            // what does not come from the policy
	join           func(*policy.Document) approve.Effective
	joined         func(approve.Effective)
	learnUntil     time.Time

	mu         sync.Mutex
	file       policyfile.File     // guarded by mu; the valid version in force
	effective  approve.Effective   // guarded by mu; file with what was approved: what decides
	generation core.Generation     // guarded by mu; of file
	resolved   map[string][]string // guarded by mu; of generation
	resolvedAt core.Generation     // guarded by mu; generation that resolved is in force for; 0: none
	quarantine bool                // guarded by mu; an invalid file denies everything
	serves     core.InstanceID     // guarded by mu; whose listeners are served; empty: nobody's
}

// load puts a version of the file in force. An invalid one changes nothing, or
// denies everything, as configured; either way its problems are returned.
func (p *policies) load(ctx context.Context, f policyfile.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Err == nil {
		f.Err = p.use(ctx, f)
	}
	if f.Err == nil {
		p.quarantine = false
		p.event(core.Event{Kind: core.EventLifecycle, Stage: core.StageConfig, Severity: core.SeverityInfo,
			Reason: core.EventPolicyLoaded, Detail: "sha256 " + f.Digest, Generation: p.generation})
		if len(f.Warnings) > 0 {
			p.event(core.Event{Kind: core.EventLifecycle, Stage: core.StageConfig, Severity: core.SeverityMedium,
				Reason: core.EventPolicyValidated, Detail: inOne(f.Warnings), Generation: p.generation})
		}
		return nil
	}
	detail := "the previous policy stays in force: "
	switch {
	case p.generation == 0:
		detail = "there is no policy, so that everything is denied: "
	case p.denyOnInvalid || f.Deny || p.quarantine: // what was denied stays so
		detail = "everything is denied until it is valid: "
		p.quarantine = true
		p.engine.Publish(nil)
		p.changed(nil)
	}
	p.event(core.Event{Kind: core.EventFinding, Stage: core.StageConfig, Severity: core.SeverityHigh,
		Reason: core.EventPolicyInvalid, Detail: detail + f.Err.Error(), Generation: p.generation})
	return f.Err
}

// inOne is a list of warnings as one text. Whoever records it cuts it.
func inOne(warnings []strictyaml.Problem) string {
	texts := make([]string, len(warnings))
	for i, w := range warnings {
		texts[i] = w.String()
	}
	return strings.Join(texts, "; ")
}

var errBinaries = errors.New("the policy has rules with binaries, but --identity off asks nobody which program connects; " +
	"use --identity process, or --identity ignore to let any program use any endpoint")

// use compiles and publishes a valid version. Preconditions: mu is held.
func (p *policies) use(ctx context.Context, f policyfile.File) error {
	e := p.join(f.Doc)
	if p.refuseBinaries && decide.HasBinaries(e.Document) {
		return errBinaries
	}
	next := p.generation + 1
	resolved, resolvedAt := p.resolved, next
	if p.resolvedAt == 0 || !sameBinaries(p.effective.Document, e.Document) {
		resolved, resolvedAt = nil, 0 // links are resolved again before they may grant anything
	}
	snap, err := p.compile(ctx, e.Document, next, resolved)
	if err != nil {
		return err
	}
	p.effective = e
	for _, x := range e.Suspended {
		p.event(core.Event{Kind: core.EventFinding, Stage: core.StageConfig, Severity: core.SeverityMedium,
			Reason: core.EventApprovalLeftOut, Rule: x.Name, Detail: "proposal " + x.ID + ": " + x.Why, Generation: next})
	}
	p.file, p.generation, p.resolved, p.resolvedAt = f, next, resolved, resolvedAt
	p.decideBy(snap)
	return nil
}

// resolvedAs takes what the policy's binaries lead to in the workload, for one
// generation; the answer to an older question is dropped.
func (p *policies) resolvedAs(ctx context.Context, generation core.Generation, paths map[string][]string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if generation != p.generation {
		return nil
	}
	snap, err := p.compile(ctx, p.effective.Document, generation, paths)
	if err != nil {
		return err
	}
	p.resolved, p.resolvedAt = paths, generation
	if !p.quarantine {
		p.decideBy(snap)
	}
	return nil
}

// serving says whose listeners are being served; the empty instance, that the
// process daemon is gone, and what its binaries resolve to with it.
func (p *policies) serving(instance core.InstanceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serves = instance
	if instance == "" {
		p.resolvedAt = 0
	}
	p.send()
}

// inForce is the policy file in force, nil if there is none.
func (p *policies) inForce() *policy.Document {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quarantine {
		return nil
	}
	return p.file.Doc
}

// refresh puts the same file in force with what is approved by now.
func (p *policies) refresh(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.quarantine || p.file.Doc == nil {
		return nil
	}
	return p.use(ctx, p.file)
}

// placeholders changes what new sessions of the workload have in their environment.
func (p *policies) placeholders(env map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base.Environment = env
	p.send()
}

// state is what readiness and metrics show.
func (p *policies) state() (generation core.Generation, digest string, quarantine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.generation, p.file.Digest, p.quarantine
}

func (p *policies) compile(ctx context.Context, doc *policy.Document, g core.Generation, resolved map[string][]string) (*decide.Snapshot, error) {
	snap, err := decide.Compile(ctx, doc, decide.Options{
		Generation: g, Resolved: resolved, IgnoreBinaries: p.ignoreBinaries, LearnUntil: p.learnUntil,
	})
	if err != nil {
		return nil, fmt.Errorf("compile the policy: %w", err)
	}
	return snap, nil
}

// decideBy makes a snapshot decide and tells everybody. Preconditions: mu is held.
func (p *policies) decideBy(snap *decide.Snapshot) {
	p.engine.Publish(snap)
	p.joined(p.effective)
	p.changed(snap)
	p.send()
}

// send publishes the configuration, which there is none of without a policy.
// Preconditions: mu is held.
func (p *policies) send() {
	if p.file.Doc == nil {
		return
	}
	c := p.base
	c.Generation, c.PolicyDigest = p.generation, p.file.Digest
	if p.serves != "" && !p.quarantine {
		c.Ready = core.Readiness{Process: p.serves, Generation: p.resolvedAt}
	}
	c.Static = staticOf(p.file.Doc)
	c.Binaries = exactBinaries(p.effective.Document)
	p.publish(c)
}

func staticOf(doc *policy.Document) core.StaticPolicy {
	return core.StaticPolicy{
		ReadOnly:       doc.Filesystem.ReadOnly,
		ReadWrite:      doc.Filesystem.ReadWrite,
		IncludeWorkdir: doc.Filesystem.IncludeWorkdir,
		HardLandlock:   doc.Landlock.Compatibility == policy.HardRequirement,
		RunAsUser:      doc.Process.RunAsUser,
		RunAsGroup:     doc.Process.RunAsGroup,
	}
}
