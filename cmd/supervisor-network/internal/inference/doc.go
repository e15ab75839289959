// Package inference answers https://inference.local: it takes a model call of the workload,
// which holds no key and names no provider, and makes it to the provider that the operator
// has chosen, with the operator's key and model.
//
// It answers the threats of a model key in the hands of an agent, of a call that reaches
// another provider, path or model than the operator pays for, and of an answer that carries
// the key back, never ends, or ends without a word. Who may call is the policy's to say
// (package decide); what is called, the routes file's alone. Nothing of a request is passed
// on but its operation, its query, a few fields that are on a list, and its body, in which
// the model is replaced.
//
// It does not answer what is said to a model: prompts go to the provider as they are.
//
// Invariant: a request goes out with the key of its own route, or not at all; a routes file
// with one mistake changes nothing.
package inference

// Protocol is a family of model calls, as routes name it.
type Protocol string

// The protocols.
const (
	ChatCompletions Protocol = "openai_chat_completions"
	Completions     Protocol = "openai_completions"
	Responses       Protocol = "openai_responses"
	Embeddings      Protocol = "openai_embeddings"
	Messages        Protocol = "anthropic_messages"
	Discovery       Protocol = "model_discovery"
)
