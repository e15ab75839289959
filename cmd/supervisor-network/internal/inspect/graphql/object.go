package graphql

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
)

// The keys of a request, as JSON object or as query.
var keys = strictjson.Names{"query", "operationName", "variables", "extensions", "id", "documentId", "queryId"}

// foreign are keys by which some servers know operations, and which rules do not
// read. They have to be refused: such a server may take them before the query.
var foreign = []string{
	"doc_id", "docId", "document_id", "query_id", "hash", "queryHash", "sha256Hash", "operationId",
	"persistedQuery", "persistedQueryId",
}

// all of them have to be written in their own case.
var names = slices.Concat(keys, foreign)

var (
	extensionNames = strictjson.Names{"persistedQuery"}
	persistedNames = strictjson.Names{"version", "sha256Hash"}
)

func isHash(hash, text string) bool {
	sum := sha256.Sum256([]byte(text))
	return hash == hex.EncodeToString(sum[:])
}

// fromObject reads the next value, an object, as one operation.
func fromObject(r *strictjson.Reader) (decide.Operation, error) {
	if r.Kind() != strictjson.Object {
		return decide.Operation{}, bad("a GraphQL request is a JSON object, or an array of them")
	}
	var q request
	err := r.Object(names, func(key string) (err error) {
		switch key {
		case "query":
			q.query, err = text(r, "the query of a GraphQL request is a text")
		case "operationName":
			q.name, err = text(r, "operationName is a text")
		case "extensions":
			err = q.extensions(r)
		case "id", "documentId", "queryId":
			err = q.setID(r)
		default:
			if slices.Contains(foreign, key) {
				err = bad("the id of an operation is called id, documentId or queryId")
			}
		}
		return err
	})
	if err != nil {
		return decide.Operation{}, err
	}
	return q.operation()
}

// text reads a text; null is as good as none.
func text(r *strictjson.Reader, detail string) (string, error) {
	switch r.Kind() {
	case strictjson.String:
		return r.String()
	case strictjson.Null:
		return "", r.Skip()
	default:
		return "", bad(detail)
	}
}

func (q *request) setID(r *strictjson.Reader) error {
	if r.Kind() == strictjson.Null {
		return r.Skip()
	}
	id, err := text(r, "the id of an operation is a text")
	if err != nil {
		return err
	}
	return q.named(&q.id, id)
}

// named sets the id or the hash.
func (q *request) named(what *string, value string) error {
	if value == "" {
		return bad("the id or hash of an operation is not empty")
	}
	*what = value
	q.ids++
	return nil
}

// extensions reads a persisted query's hash; null is as good as none.
func (q *request) extensions(r *strictjson.Reader) error {
	return object(r, extensionNames, "the extensions of a GraphQL request are an object", func(key string) error {
		if key != "persistedQuery" {
			return nil
		}
		if r.Kind() == strictjson.Null {
			return r.Skip()
		}
		before := q.ids
		err := object(r, persistedNames, "a persisted query is an object with a SHA-256", func(key string) (err error) {
			switch key {
			case "version":
				if q.version, err = r.Number(); err == nil && q.version != "1" {
					err = bad("the version of a persisted query is 1")
				}
			case "sha256Hash":
				var hash string
				if hash, err = text(r, "the hash of a persisted query is a text"); err == nil {
					err = q.named(&q.hash, hash)
				}
			}
			return err
		})
		if err == nil && q.ids == before {
			err = bad("a persisted query is an object with a SHA-256")
		}
		return err
	})
}

// object reads an object; null is as good as none.
func object(r *strictjson.Reader, names strictjson.Names, detail string, member func(key string) error) error {
	switch r.Kind() {
	case strictjson.Object:
		return r.Object(names, member)
	case strictjson.Null:
		return r.Skip()
	default:
		return bad(detail)
	}
}
