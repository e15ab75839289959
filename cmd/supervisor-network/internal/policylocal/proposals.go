package policylocal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/propose"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/address"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Limits of one request for rules.
const (
	maxOperations = 16
	maxEndpoints  = 16
	maxBinaries   = 32
	maxRules      = 64
	maxName       = 64
	maxIntent     = 500
)

// submission is the body of a request for rules.
type submission struct {
	Intent     string      `json:"intent_summary"`
	Operations []operation `json:"operations"`
}

type operation struct {
	AddRule *addRule `json:"addRule"`
}

type addRule struct {
	Name string          `json:"ruleName"`
	Rule json.RawMessage `json:"rule"`
}

// submitted is the answer to one.
type submitted struct {
	Status   string   `json:"status"`
	Accepted int      `json:"accepted_chunks"`
	Rejected int      `json:"rejected_chunks"`
	Reasons  []string `json:"rejection_reasons"`
	IDs      []string `json:"accepted_chunk_ids"`
}

func (s *Server) propose(body []byte) Answer {
	if !s.posts.Allow() {
		return fail(429, "too_many_requests", "proposals come too fast; one a second is taken")
	}
	proposals, err := readSubmission(body)
	if err != nil {
		return fail(400, "invalid_proposal", "%v", err)
	}
	out := submitted{Status: "submitted", Reasons: []string{}, IDs: []string{}}
	for _, p := range proposals {
		id, err := s.submit(p)
		switch refusal, ok := errors.AsType[*approve.Refusal](err); {
		case err == nil:
			out.Accepted++
			out.IDs = append(out.IDs, id)
		case ok:
			out.Rejected++
			out.Reasons = append(out.Reasons, p.Name+": "+refusal.Code+": "+refusal.Text)
		case errors.Is(err, approve.ErrNoPolicy):
			return fail(503, "policy_unavailable", "no policy is in force that a rule could join; try again later")
		default: // its cause is the operator's
			return fail(500, "proposal_submit_failed", "the proposal could not be kept; try again later")
		}
	}
	return Answer{202, out}
}

// submit hands one proposal over, and explains refusals that a loop could be made of.
func (s *Server) submit(p propose.Proposal) (string, error) {
	if why := s.unreachable(p.Rule); why != "" {
		return "", &approve.Refusal{Code: "needs_allowed_ips", Text: why}
	}
	e, err := s.opt.Proposals.Submit(p)
	if refusal, ok := errors.AsType[*approve.Refusal](err); ok && refusal.Code == "redundant" {
		return "", &approve.Refusal{Code: refusal.Code, Text: refusal.Text +
			"; if the request is still refused, GET /v1/denials says why, and connections that were open before need to be opened again"}
	}
	return e.ID, err
}

// unreachable says which endpoint of a rule would be refused for its addresses, as it
// was before.
func (s *Server) unreachable(r policy.Rule) string {
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		if len(e.AllowedIPs) > 0 {
			continue
		}
		if a, err := netip.ParseAddr(e.Host); err == nil {
			if class, why := address.Classify(a); class == address.Internal {
				return fmt.Sprintf("%s is not a public address (%s); a rule opens it only with allowed_ips: [%q]", e.Host, why, e.Host)
			}
		}
		for _, ev := range s.opt.Denials.Last(aggregate.MaxRecent) {
			if strings.EqualFold(ev.Host, e.Host) && slices.Contains(e.Ports, ev.Port) {
				if ev.Reason == core.ReasonSSRFDenied {
					return e.Host + ": " + propose.NeedsAddresses + "; the last refusal was: " + approve.OneLine(ev.Detail, 300)
				}
				break // the newest counts
			}
		}
	}
	return ""
}

// readSubmission reads a body as proposals.
func readSubmission(body []byte) ([]propose.Proposal, error) {
	if err := unambiguous(body); err != nil {
		return nil, fmt.Errorf("the body is not JSON that can be read in one way: %w", err)
	}
	var in submission
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf(`the body is {"intent_summary": …, "operations": [{"addRule": {"ruleName": …, "rule": {…}}}]}, and addRule is the only operation: %w`, err)
	}
	switch n := len(in.Operations); {
	case n == 0:
		return nil, errors.New("operations is empty; add one addRule")
	case n > maxOperations:
		return nil, fmt.Errorf("%d operations; %d are allowed", n, maxOperations)
	}
	var out []propose.Proposal
	for i, op := range in.Operations {
		if op.AddRule == nil {
			return nil, fmt.Errorf("operations[%d]: there is no addRule in it", i)
		}
		rule, err := op.AddRule.read()
		if err != nil {
			return nil, fmt.Errorf("operations[%d].addRule: %w", i, err)
		}
		out = append(out, propose.Proposal{Source: propose.Agent, Name: op.AddRule.Name, Rule: rule, Hits: 1,
			Rationale: approve.OneLine(in.Intent, maxIntent), Notes: propose.Review(rule)})
	}
	return out, nil
}

// unambiguous refuses JSON that two readers could take apart differently.
func unambiguous(body []byte) error {
	r, err := strictjson.New(body)
	if err != nil {
		return err
	}
	if err := walk(r); err != nil {
		return err
	}
	return r.End()
}

func walk(r *strictjson.Reader) error {
	switch r.Kind() {
	case strictjson.Object:
		return r.Object(strictjson.Names{}, func(string) error { return walk(r) })
	case strictjson.Array:
		return r.Array(func(int) error { return walk(r) })
	default:
		return r.Skip()
	}
}

// endpointKeys are what a proposal may say about an endpoint: nothing of credentials,
// and no mark of the system.
var endpointKeys = []string{
	"host", "port", "ports", "path", "protocol", "tls", "enforcement", "access", "rules", "deny_rules", "allowed_ips",
	"allow_encoded_slash", "mcp", "json_rpc", "graphql_max_body_bytes",
}

// read checks what only proposals are not allowed to say, and has the rest read as the
// policy file that it would be a part of.
func (a *addRule) read() (policy.Rule, error) {
	if a.Name == "" || len(a.Name) > maxName || strings.Trim(a.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != "" {
		return policy.Rule{}, fmt.Errorf("ruleName has 1 to %d letters, digits, _, - and dots", maxName)
	}
	dec := json.NewDecoder(bytes.NewReader(a.Rule))
	dec.UseNumber()
	var raw map[string]any
	if err := dec.Decode(&raw); err != nil || raw == nil {
		return policy.Rule{}, errors.New("rule is an object with endpoints and binaries")
	}
	raw["name"] = a.Name
	if err := prepare(raw); err != nil {
		return policy.Rule{}, fmt.Errorf("rule.%w", err)
	}
	// JSON as this package writes it is YAML: texts are in double quotes.
	text, err := json.Marshal(map[string]any{"version": 1, "network_policies": map[string]any{a.Name: raw}})
	if err != nil {
		return policy.Rule{}, errors.New("rule cannot be read")
	}
	doc, _, err := policy.Parse("proposal", text)
	if problems, ok := errors.AsType[strictyaml.Problems](err); ok {
		return policy.Rule{}, errors.New("rule." + approve.InWords(problems, a.Name))
	}
	if err != nil {
		return policy.Rule{}, errors.New("rule cannot be read")
	}
	return doc.Network[a.Name], nil
}

func prepare(rule map[string]any) error {
	if list, _ := rule["binaries"].([]any); len(list) > maxBinaries {
		return fmt.Errorf("binaries: %d are listed; %d are allowed", len(list), maxBinaries)
	}
	endpoints, _ := rule["endpoints"].([]any)
	switch n := len(endpoints); {
	case n == 0:
		return errors.New("endpoints: list at least one")
	case n > maxEndpoints:
		return fmt.Errorf("endpoints: %d are listed; %d are allowed", n, maxEndpoints)
	}
	for i, v := range endpoints {
		e, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("endpoints[%d]: write an object", i)
		}
		if err := prepareEndpoint(e); err != nil {
			return fmt.Errorf("endpoints[%d].%w", i, err)
		}
	}
	return nil
}

func prepareEndpoint(e map[string]any) error {
	for key := range e {
		if !slices.Contains(endpointKeys, key) {
			return fmt.Errorf("%.64q: a proposal cannot set this; it may say %s", key, strings.Join(endpointKeys, ", "))
		}
	}
	// What is proposed is enforced unless it says otherwise, unlike in a file.
	if p, _ := e["protocol"].(string); policy.Protocol(p).Inspected() && p != string(policy.ProtocolSQL) && e["enforcement"] == nil {
		e["enforcement"] = "enforce"
	}
	for _, key := range []string{"rules", "deny_rules"} {
		list, _ := e[key].([]any)
		if len(list) > maxRules {
			return fmt.Errorf("%s: %d are listed; %d are allowed", key, len(list), maxRules)
		}
		for i, v := range list {
			m, _ := v.(map[string]any)
			if allow, ok := m["allow"].(map[string]any); ok {
				m = allow
			}
			if path, _ := m["path"].(string); strings.Contains(path, "?") {
				return fmt.Errorf("%s[%d].path: a path has no query and no ? in it; write query for parameters", key, i)
			}
		}
	}
	return nil
}
