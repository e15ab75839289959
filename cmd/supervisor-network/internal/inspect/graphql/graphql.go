// Package graphql reads which operations a GraphQL request, or message of a
// WebSocket, executes.
//
// It answers the threat of an operation that rules do not see: behind an alias, a
// fragment, a batch, a second place to write it in, a hash that is not its own, a
// text that two lexers cut in two ways. It does not know the schema: a field is
// judged by its name alone.
//
// Invariant: what is returned is everything the request executes, one Operation
// each, or there is an error. Work and memory are bounded by the size of the input
// and the constants here.
//
// Sources: the GraphQL specification (October 2021) sections 2, 5.2, 5.5, 6.1;
// GraphQL over HTTP; Apollo's automatic persisted queries; the protocols
// graphql-transport-ws and subscriptions-transport-ws.
package graphql

import (
	"errors"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/content"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
	"github.com/splitpod/splitpod/pkg/core"
)

// MaxBatch is how many operations one request may have.
const MaxBatch = 100

func bad(detail string) error {
	return &content.Error{Status: 400, Reason: core.ReasonInvalidGraphQL, Detail: detail}
}

// readable gives an error of the JSON reader its reason.
func readable(err error) error {
	if e, ok := errors.AsType[*strictjson.Error](err); ok {
		return bad(e.Error())
	}
	return err
}

// Read returns the operations of an HTTP request, or a [content.Error].
func Read(h *content.Head, body []byte) ([]decide.Operation, error) {
	switch h.Method {
	case "GET":
		if h.Body || len(body) > 0 {
			return nil, bad("a GraphQL request by GET has no body")
		}
		return fromQuery(h.Query)
	case "POST":
		if err := withoutParameters(h.Query); err != nil {
			return nil, err
		}
		if err := h.JSON(core.ReasonInvalidGraphQL, "application/json"); err != nil {
			return nil, err
		}
		return fromBody(body)
	default:
		return nil, bad("a GraphQL request is sent by GET or POST")
	}
}

func fromBody(body []byte) ([]decide.Operation, error) {
	if len(body) == 0 {
		return nil, bad("a GraphQL request by POST has a body")
	}
	r, err := strictjson.New(body)
	if err != nil {
		return nil, readable(err)
	}
	ops, err := operations(r)
	if err == nil {
		err = r.End()
	}
	if err != nil {
		return nil, readable(err)
	}
	return ops, nil
}

func operations(r *strictjson.Reader) (ops []decide.Operation, err error) {
	one := func(i int) error {
		if i == MaxBatch {
			return bad("a GraphQL batch has at most 100 operations")
		}
		op, err := fromObject(r)
		ops = append(ops, op)
		return err
	}
	switch r.Kind() {
	case strictjson.Object:
		err = one(0)
	case strictjson.Array:
		if err = r.Array(one); err == nil && len(ops) == 0 {
			err = bad("a GraphQL batch is not empty")
		}
	default:
		err = bad("a GraphQL request is a JSON object, or an array of them")
	}
	return ops, err
}

// request is one operation as it is sent.
type request struct {
	query, name, hash, id string
	ids                   int // hashes and ids
	version               string
}

// operation judges what the parts of a request mean together.
func (q *request) operation() (decide.Operation, error) {
	switch {
	case q.ids > 1:
		return decide.Operation{}, bad("a GraphQL request has one id or hash")
	case q.query == "" && q.ids == 0:
		return decide.Operation{}, bad("a GraphQL request has a query, or an id or hash of one")
	case q.query == "":
		return decide.Operation{Name: q.name, Persisted: q.hash + q.id}, nil
	case q.id != "":
		return decide.Operation{}, bad("a GraphQL request has either a query or an id")
	case q.hash != "" && !isHash(q.hash, q.query):
		return decide.Operation{}, bad("a hash beside a query is the query's SHA-256, in small letters")
	}
	return operation(q.query, q.name)
}
