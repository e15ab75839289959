package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/gateway/policydoc"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core"
)

// firstPauses are the waits between the first questions, until one is answered; after them,
// and between all others, it is Options.Poll.
var firstPauses = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second}

// Bounds of acknowledgements.
const (
	maxReports   = 16
	maxLoadError = 8 << 10
	longestPause = 32 * time.Second
)

// retainLastValid is the gateway's word for a policy that stays in force when the next one
// is not valid. Every other word denies everything then.
const retainLastValid = "retain_last_valid"

// judged is the policy that was judged last, and what became of it.
type judged struct {
	known   bool
	hash    string
	sum     [sha256.Size]byte // of the message: a hash that the gateway did not change changes nothing here
	version uint32
	deny    bool // an invalid one denies everything
	err     error
}

// follow asks for the policy until ctx ends.
func (g *Gateway) follow(ctx context.Context) {
	answered := false
	for n := 0; ctx.Err() == nil; n++ {
		config, err := g.client.GetSandboxConfig(ctx, &gatewayv1.GetSandboxConfigRequest{SandboxId: g.opt.SandboxID})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			g.lost(err)
		default:
			answered = true
			g.reached()
			g.take(ctx, config)
		}
		pause := g.opt.Poll
		if !answered && n < len(firstPauses) {
			pause = min(pause, firstPauses[n])
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// lost notes that the gateway does not answer, and says so when that is new.
func (g *Gateway) lost(err error) {
	text := g.say(err)
	g.mu.Lock()
	was := g.known
	g.known.Error = text
	if was.Failing.IsZero() {
		g.known.Failing = time.Now()
	}
	g.mu.Unlock()
	if was.Error != text {
		level := slog.LevelWarn
		if lasting(status.Code(err)) {
			level = slog.LevelError
		}
		g.opt.Log.Log(context.Background(), level, "the gateway gives no policy; it is asked again", slog.String("error", text))
	}
	if was.Failing.IsZero() {
		g.event(core.EventGatewayLost, core.SeverityLow, core.Allow, text)
	}
}

// lasting reports whether a status is one that no further try repairs: somebody has to.
func lasting(c codes.Code) bool {
	switch c {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown:
		return false
	default:
		return true
	}
}

func (g *Gateway) reached() {
	g.mu.Lock()
	was := g.known
	g.known.Answered, g.known.Failing, g.known.Error = time.Now(), time.Time{}, ""
	g.mu.Unlock()
	if was.Answered.IsZero() || !was.Failing.IsZero() {
		g.opt.Log.Info("the gateway answers", slog.String("address", g.opt.Address))
		g.event(core.EventGatewayReached, core.SeverityInfo, core.Allow, "")
	}
}

var errNoPolicy = errors.New("the gateway has no policy for this sandbox; give it one (this daemon uploads none)")

// take judges the policy of an answer, unless it is the one that was judged last.
func (g *Gateway) take(ctx context.Context, c *gatewayv1.GetSandboxConfigResponse) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.GetPolicy())
	if err != nil {
		g.opt.Log.Error("BUG: the gateway's policy cannot be written", slog.Any("error", err))
		return
	}
	if c.GetPolicy() != nil {
		data = append(data, 1) // an empty one is another than none
	}
	now := judged{known: true, hash: c.GetPolicyHash(), sum: sha256.Sum256(data), version: c.GetVersion(), deny: c.GetPolicyValidationFailureMode() != retainLastValid}
	was := g.policy
	if was.known && was.hash == now.hash && was.sum == now.sum && (was.err == nil || was.deny == now.deny) {
		now.err = was.err
		if was.version != now.version {
			g.describe(c, now.err)
			g.report(c, now.err)
		}
		g.policy = now
		return
	}
	f := candidate(c)
	f.Deny = now.deny
	now.err = g.opt.Apply(context.WithoutCancel(ctx), f) // the end of this daemon says nothing about a policy
	if ctx.Err() != nil {
		return
	}
	g.policy = now
	g.describe(c, now.err)
	g.report(c, now.err)
}

// candidate is the policy of an answer as a version of the policy file.
func candidate(c *gatewayv1.GetSandboxConfigResponse) policyfile.File {
	if c.GetPolicy() == nil {
		return policyfile.File{Err: errNoPolicy}
	}
	return policydoc.Read(fmt.Sprintf("revision %d", c.GetVersion()), c.GetPolicy())
}

func (g *Gateway) describe(c *gatewayv1.GetSandboxConfigResponse, err error) {
	text := fmt.Sprintf("policy revision %d", c.GetVersion())
	if c.GetPolicySource() == gatewayv1.PolicySource_POLICY_SOURCE_GLOBAL {
		text = fmt.Sprintf("the gateway's policy for all, revision %d", c.GetGlobalPolicyVersion())
	}
	if c.GetPolicy() == nil {
		text = "no policy"
	}
	if err != nil {
		text += " is refused"
	}
	g.mu.Lock()
	g.known.Policy = text
	g.mu.Unlock()
}

// report has deliver tell the gateway what became of a revision. A policy for all sandboxes
// is nobody's to acknowledge.
func (g *Gateway) report(c *gatewayv1.GetSandboxConfigResponse, err error) {
	if c.GetVersion() == 0 || c.GetPolicySource() != gatewayv1.PolicySource_POLICY_SOURCE_SANDBOX {
		return
	}
	r := &gatewayv1.ReportPolicyStatusRequest{SandboxId: g.opt.SandboxID, Version: c.GetVersion(), Status: gatewayv1.PolicyStatus_POLICY_STATUS_LOADED}
	if err != nil {
		r.Status, r.LoadError = gatewayv1.PolicyStatus_POLICY_STATUS_FAILED, cut(err.Error(), maxLoadError)
	}
	select {
	case g.reports <- r:
	default:
		g.opt.Log.Warn("the gateway is not told what became of a policy: too many wait", slog.Uint64("version", uint64(r.Version)))
	}
}

// deliver tells the gateway what became of revisions, in order.
func (g *Gateway) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-g.reports:
			err := persist(ctx, time.Second, longestPause, lasting, func() error {
				_, err := g.client.ReportPolicyStatus(ctx, r)
				return err
			})
			if err != nil && ctx.Err() == nil {
				g.opt.Log.Warn("the gateway does not take what became of a policy", slog.Uint64("version", uint64(r.Version)), slog.String("error", g.say(err)))
			}
		}
	}
}

// persist calls again, with growing pauses, what failed in a way that is not final.
func persist(ctx context.Context, pause, longest time.Duration, final func(codes.Code) bool, call func() error) error {
	for {
		err := call()
		if err == nil || final(status.Code(err)) || !sleep(ctx, pause) {
			return err
		}
		pause = min(2*pause, longest)
	}
}
