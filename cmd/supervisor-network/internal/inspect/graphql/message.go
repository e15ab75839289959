package graphql

import (
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/decide"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inspect/strictjson"
)

var messageNames = strictjson.Names{"type", "id", "payload"}

// Message reads one text message of a client over a WebSocket, in either protocol.
// control is true for a message that executes nothing; every other message has
// operations, or there is a [content.Error].
func Message(text []byte) (ops []decide.Operation, control bool, err error) {
	m, err := readMessage(text)
	if err != nil {
		return nil, false, readable(err)
	}
	switch m.kind {
	case "connection_init", "connection_terminate", "ping", "pong", "complete", "stop":
		return nil, true, nil
	case "subscribe", "start":
	default:
		return nil, false, bad("a GraphQL message is of a type that clients send")
	}
	switch {
	case !m.hasID:
		return nil, false, bad("a GraphQL message that starts an operation has a text as id")
	case m.payload == nil:
		return nil, false, bad("a GraphQL message that starts an operation has an object as payload")
	}
	op, err := fromObject(m.payload)
	if err != nil {
		return nil, false, readable(err)
	}
	return []decide.Operation{op}, false, nil
}

// message is one message. What its payload is depends on its kind, which may come
// behind it.
type message struct {
	kind    string
	hasID   bool
	payload *strictjson.Reader // nil if it is no object
}

func readMessage(data []byte) (m message, err error) {
	r, err := strictjson.New(data)
	if err != nil {
		return m, err
	}
	if r.Kind() != strictjson.Object {
		return m, bad("a GraphQL message is a JSON object")
	}
	err = r.Object(messageNames, func(key string) (err error) {
		switch key {
		case "type":
			m.kind, err = text(r, "the type of a GraphQL message is a text")
		case "id":
			m.hasID = r.Kind() == strictjson.String
		case "payload":
			if r.Kind() == strictjson.Object {
				m.payload = r.Later()
			}
		}
		return err
	})
	if err == nil {
		err = r.End()
	}
	return m, err
}
