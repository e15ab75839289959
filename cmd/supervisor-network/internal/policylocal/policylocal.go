// Package policylocal answers the workload's questions about the policy, and takes its
// proposals: what http://policy.local serves.
//
// It answers the threat of an agent that asks without end or measure, and of one that
// asks for its own approval: every list, text, wait and rate has a limit, each is said
// in words, and no route decides anything. It does not answer an agent that reads the
// policy to find what it may do; that is what the routes are for. Any program of the
// workload may use them.
//
// Invariant: every request gets an answer in JSON; nothing that the workload sends here
// changes what is allowed.
package policylocal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/aggregate"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/approve"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/policy"
)

// Where the API is.
const (
	Host = "policy.local"
	Port = 80
)

// Limits.
const (
	MaxBody     = 65536
	BodyTimeout = 15 * time.Second
	maxWaits    = 32 // at one time
	maxLast     = 100
	longestWait = 300 * time.Second
)

// Request is one request, read by the caller within MaxBody and BodyTimeout.
type Request struct {
	Method string
	Path   string
	Query  string // without question mark
	Body   []byte
}

// Answer is a status and what becomes its body.
type Answer struct {
	Status int
	Body   any
}

// JSON is the body as it is sent.
func (a Answer) JSON() []byte {
	data, err := json.Marshal(a.Body)
	if err != nil {
		panic(fmt.Sprintf("BUG: an answer cannot be written: %v", err))
	}
	return append(data, '\n')
}

type problem struct {
	Error     string         `json:"error"`
	Detail    string         `json:"detail"`
	RequestID core.RequestID `json:"request_id,omitempty"`
}

func fail(status int, code, format string, args ...any) Answer {
	return Answer{status, problem{Error: code, Detail: fmt.Sprintf(format, args...)}}
}

// Unread is the answer to a request whose body was not read. Status is one of 400,
// 408, 411 and 413, whatever the reason was.
func Unread(status int) Answer {
	switch status {
	case 413:
		return fail(413, "body_too_large", "the body may have %d bytes", MaxBody)
	case 408:
		return fail(408, "request_timeout", "the body did not arrive within %s", BodyTimeout)
	case 411:
		return fail(411, "length_required", "send the body with a Content-Length")
	default:
		return fail(400, "bad_request", "the body of the request cannot be read")
	}
}

// Options are what a Server works with. All but Now are required.
type Options struct {
	Enabled   func() bool
	Proposals *approve.Store
	Policy    func() *policy.Document // that decides, with what was approved; nil: none
	Denials   *aggregate.Recent
	Now       func() time.Time
}

// Server answers. Make it with New; safe for concurrent use.
type Server struct {
	opt   Options
	waits chan struct{}
	posts *rate.Limiter
}

// New makes a Server.
func New(opt Options) *Server {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Server{opt: opt, waits: make(chan struct{}, maxWaits), posts: rate.NewLimiter(1, 20)}
}

const routes = "GET /v1/policy/current, GET /v1/denials?last=N, POST /v1/proposals, GET /v1/proposals/ID, GET /v1/proposals/ID/wait?timeout=SECONDS"

// Serve answers one request. It returns early, with what is known, when ctx ends.
func (s *Server) Serve(ctx context.Context, r *Request) Answer {
	if !s.opt.Enabled() {
		return fail(404, "feature_disabled", "proposals of the workload are off; the operator can turn agent_policy_proposals_enabled on")
	}
	query, err := url.ParseQuery(r.Query)
	if err != nil {
		return fail(400, "bad_request", "the query of the URL cannot be read")
	}
	route, id, wait := s.route(r.Path)
	switch r.Method + " " + route {
	case "GET /v1/policy/current":
		return s.policy()
	case "GET /v1/denials":
		return s.denials(query.Get("last"))
	case "POST /v1/proposals":
		return s.propose(r.Body)
	case "GET /v1/proposals/{id}":
		if wait {
			return s.wait(ctx, id, query.Get("timeout"))
		}
		return s.get(id)
	}
	return fail(404, "not_found", "there is no such route; there are %s", routes)
}

// route splits what belongs to one proposal.
func (s *Server) route(path string) (route, id string, wait bool) {
	rest, ok := strings.CutPrefix(path, "/v1/proposals/")
	if !ok {
		return path, "", false
	}
	id, wait = strings.CutSuffix(rest, "/wait")
	if id == "" || strings.Contains(id, "/") {
		return "", "", false
	}
	return "/v1/proposals/{id}", id, wait
}

func (s *Server) policy() Answer {
	doc := s.opt.Policy()
	if doc == nil {
		return fail(404, "policy_unavailable", "no policy is in force; everything is refused until there is one")
	}
	return Answer{200, map[string]string{"format": "yaml", "policy_yaml": string(policy.Encode(doc))}}
}

// number reads an optional number of the query and brings it into a range.
func number(text string, otherwise, low, high int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(text, "-") {
		n, err = high, nil
	}
	return min(max(n, low), high), err
}

// chunk is a proposal as the workload sees it.
type chunk struct {
	ID             string         `json:"chunk_id"`
	Status         approve.Status `json:"status"`
	RuleName       string         `json:"rule_name"`
	Binary         string         `json:"binary"`
	Rejection      string         `json:"rejection_reason"`
	Validation     string         `json:"validation_result"`
	TimedOut       bool           `json:"timed_out,omitempty"`
	PolicyReloaded *bool          `json:"policy_reloaded,omitempty"`
	ReviewNotes    []string       `json:"review_notes,omitempty"`
}

func chunkOf(e approve.Entry) chunk {
	c := chunk{ID: e.ID, Status: e.Status, RuleName: e.Name, Validation: "valid"}
	if len(e.Rule.Binaries) > 0 {
		c.Binary = e.Rule.Binaries[0].Path
	}
	switch e.Status {
	case approve.Approved:
		c.PolicyReloaded = &e.InForce
	case approve.Superseded, approve.Revoked: // which nobody knows how to wait for
		c.Status = approve.Rejected
		c.Rejection = string(e.Status)
		if e.Reason != "" {
			c.Rejection += ": " + e.Reason
		}
	case approve.Rejected:
		c.Rejection = e.Reason
	}
	for _, n := range e.Notes {
		c.ReviewNotes = append(c.ReviewNotes, n.Text)
	}
	return c
}

func (s *Server) get(id string) Answer {
	e, err := s.opt.Proposals.Get(id)
	if err != nil {
		return unknown()
	}
	return Answer{200, chunkOf(e)}
}

func unknown() Answer {
	return fail(404, "chunk_not_found", "there is no proposal with this id; decided ones are forgotten after a while")
}

func (s *Server) wait(ctx context.Context, id, timeout string) Answer {
	seconds, err := number(timeout, 60, 1, int(longestWait/time.Second))
	if err != nil {
		return fail(400, "bad_request", "timeout is a number of seconds")
	}
	select {
	case s.waits <- struct{}{}:
		defer func() { <-s.waits }()
	default:
		return fail(503, "too_many_waits", "%d requests wait already; ask without /wait", maxWaits)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	defer cancel()
	e, err := s.opt.Proposals.Wait(ctx, id)
	if err != nil {
		return unknown()
	}
	c := chunkOf(e)
	c.TimedOut = e.Status == approve.Pending || e.Status == approve.Approved && !e.InForce
	return Answer{200, c}
}
