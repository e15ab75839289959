package inference

import (
	"net/http"
	"strings"
)

// operation is what one method and path stand for.
type operation struct {
	protocol Protocol
	// streams says that the answer may go on for as long as something comes of it. Others
	// are short, and have the route's time for all of it.
	streams bool
}

// operations are those of POST, by their path.
var operations = map[string]operation{
	"/v1/chat/completions": {ChatCompletions, true},
	"/v1/completions":      {Completions, true},
	"/v1/responses":        {Responses, true},
	"/v1/embeddings":       {Embeddings, false},
	"/v1/messages":         {Messages, true},
}

// operationOf recognises a call by its method and canonical path.
func operationOf(method, path string) (operation, bool) {
	switch {
	case method == http.MethodPost:
		op, ok := operations[path]
		return op, ok
	case method == http.MethodGet && (path == "/v1/models" || strings.HasPrefix(path, "/v1/models/")):
		return operation{Discovery, false}, true
	default:
		return operation{}, false
	}
}
