package usage_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference/usage"
)

// tokens is what a Meter says.
type tokens struct {
	in, out uint64
	known   bool
}

// meter gives an answer to a Meter in pieces of so many bytes.
func meter(contentType, answer string, size int) tokens {
	m := usage.New(contentType)
	for len(answer) > 0 {
		n := min(size, len(answer))
		if wrote, err := m.Write([]byte(answer[:n])); wrote != n || err != nil {
			panic(fmt.Sprintf("wrote %d of %d: %v", wrote, n, err))
		}
		answer = answer[n:]
	}
	in, out, known := m.Tokens()
	return tokens{in, out, known}
}

const (
	jsonType  = "application/json"
	eventType = "text/event-stream; charset=utf-8"
)

// Answers as the providers document them.
const (
	chat = `{"id":"chatcmpl-1","object":"chat.completion","created":1790000000,"model":"gpt-x","choices":[{"index":0,
 "message":{"role":"assistant","content":"The \"usage\": {\"prompt_tokens\": 9999} you asked for","refusal":null},"logprobs":null,"finish_reason":"stop"}],
 "usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,
  "prompt_tokens_details":{"cached_tokens":7,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":3}},"service_tier":"default"}`
	completion = `{"id":"cmpl-1","object":"text_completion","choices":[{"text":"x","index":0,"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}`
	embedding  = `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0023,-0.009,1e-05]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}`
	responses  = `{"id":"resp_1","object":"response","status":"completed","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"hi","annotations":[]}]}],
 "usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":30},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123},"metadata":{}}`
	message = `{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"tool_use","id":"t","name":"f","input":{"usage":{"input_tokens":1000,"output_tokens":1000}}}],
 "stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":100,"cache_read_input_tokens":2000,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":0},"output_tokens":15,"service_tier":"standard"}}`

	chatStream = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"data: {\"usage\":{\"prompt_tokens\":1}}\n\n"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}

data: [DONE]

`
	responsesStream = `event: response.created
data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","status":"in_progress","output":[],"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":1,"delta":"Hi","item_id":"msg_1"}

event: response.completed
data: {"type":"response.completed","sequence_number":2,"response":{"id":"resp_1","status":"completed","output":[{"type":"message","content":[{"text":"Hi"}]}],"usage":{"input_tokens":37,"output_tokens":11,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":48}}}

`
	messageStream = `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"usage":{"input_tokens":25,"cache_creation_input_tokens":0,"cache_read_input_tokens":300,"output_tokens":1}}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

: a comment

event: ping
data: {"type": "ping"}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

`
)

func TestTokensAreReadOutOfEveryKindOfAnswer(t *testing.T) {
	first, _, _ := strings.Cut(messageStream, ": a comment")
	broken := chatStream[:strings.Index(chatStream, `,"completion_tokens":10`)]
	const cut = "data: {\"a\":[[{\"b\n\n"
	for name, tt := range map[string]struct {
		contentType, answer string
		want                tokens
	}{
		"OpenAI chat completion":                    {jsonType, chat, tokens{19, 10, true}},
		"OpenAI completion":                         {jsonType, completion, tokens{5, 7, true}},
		"OpenAI embeddings, which write no token":   {jsonType, embedding, tokens{8, 0, true}},
		"OpenAI response":                           {jsonType, responses, tokens{36, 87, true}},
		"Anthropic message, with its cache":         {jsonType, message, tokens{2125, 15, true}},
		"OpenAI chat stream":                        {eventType, chatStream, tokens{19, 10, true}},
		"OpenAI responses stream":                   {eventType, responsesStream, tokens{37, 11, true}},
		"Anthropic stream":                          {eventType, messageStream, tokens{325, 15, true}},
		"lines that end as in HTTP":                 {eventType, strings.ReplaceAll(messageStream, "\n", "\r\n"), tokens{325, 15, true}},
		"an event in several lines":                 {eventType, "data: {\"usage\":{\"prompt_tokens\":1\ndata:2,\ndata:\"completion_tokens\":3}\ndata:}\n\n", tokens{1, 3, true}},
		"a stream that broke off":                   {eventType, first, tokens{325, 1, true}},
		"and within a usage, behind a number":       {eventType, broken, tokens{0, 0, false}},
		"and behind the comma":                      {eventType, broken + ",", tokens{19, 0, true}},
		"an event that is cut does not spoil more":  {eventType, cut + chatStream, tokens{19, 10, true}},
		"nor does one with lines as in HTTP":        {eventType, strings.ReplaceAll(cut+chatStream, "\n", "\r\n"), tokens{19, 10, true}},
		"an error instead":                          {jsonType, `{"error":{"message":"no","type":"invalid_request_error"}}`, tokens{}},
		"a usage of nulls":                          {jsonType, `{"usage":{"prompt_tokens":null,"completion_tokens":"7"}}`, tokens{}},
		"zeros":                                     {jsonType, `{"usage":{"prompt_tokens":0,"completion_tokens":0}}`, tokens{0, 0, true}},
		"OpenAI's numbers beside a cache's":         {jsonType, `{"usage":{"prompt_tokens":50,"completion_tokens":2,"cache_read_input_tokens":40}}`, tokens{50, 2, true}},
		"a usage in a list":                         {jsonType, `[{"usage":{"prompt_tokens":5}}]`, tokens{}},
		"a usage too deep":                          {jsonType, `{"response":{"message":{"usage":{"prompt_tokens":5}}}}`, tokens{}},
		"a usage that is a list":                    {jsonType, `{"usage":[{"prompt_tokens":5}]}`, tokens{}},
		"numbers deeper in the usage":               {jsonType, `{"usage":{"x":{"prompt_tokens":5},"y":[{"input_tokens":5}],"prompt_tokens":{"z":5},"output_tokens":[5]}}`, tokens{}},
		"numbers behind the usage":                  {jsonType, `{"usage":{},"prompt_tokens":5}`, tokens{}},
		"a name with more":                          {jsonType, `{"usage":{"prompt_tokens_":5,"xprompt_tokens":5,"cache_creation_input_tokens_":5},"usages":{"prompt_tokens":5}}`, tokens{}},
		"a name with an escape, which nobody sends": {jsonType, `{"us\u0061ge":{"prompt_tokens":5}}`, tokens{}},
		"a name with more, escaped":                 {jsonType, `{"\"usage":{"prompt_tokens":5}}`, tokens{}},
		"a bracket too many, before":                {jsonType, `}]{"usage":{"prompt_tokens":5}}`, tokens{5, 0, true}},
		"no object around the usage":                {jsonType, `,"usage"{"prompt_tokens":5}`, tokens{}},
		"nor around this one":                       {jsonType, `{}"usage"{"prompt_tokens":5}`, tokens{}},
		"a usage without its name":                  {jsonType, `{"message":{"usage":1}{"prompt_tokens":5}}`, tokens{}},
		"the name as a value":                       {jsonType, `{"x":"usage","y":{"prompt_tokens":5}}`, tokens{}},
		"the largest number":                        {jsonType, `{"usage":{"prompt_tokens":1000000000000}}`, tokens{1e12, 0, true}},
		"one above it":                              {jsonType, `{"usage":{"prompt_tokens":1000000000001,"completion_tokens":5}}`, tokens{}},
		"more than any number holds":                {jsonType, `{"usage":{"prompt_tokens":18446744073709551617}}`, tokens{}},
		"a negative one":                            {jsonType, `{"usage":{"input_tokens":9,"cache_read_input_tokens":-1}}`, tokens{}},
		"a fraction":                                {jsonType, `{"usage":{"prompt_tokens":1.5}}`, tokens{}},
		"an exponent":                               {jsonType, `{"usage":{"prompt_tokens":1e3}}`, tokens{}},
		"a wrong number is not mended by another":   {eventType, "data:{\"usage\":{\"input_tokens\":-5}}\n\ndata:{\"usage\":{\"input_tokens\":5}}\n\n", tokens{}},
		"JSON as an event stream":                   {eventType, chat, tokens{}},
		"an event stream as JSON":                   {jsonType, "data: {\"x\":1}", tokens{}},
		"another field of an event":                 {eventType, "event: {\"usage\":{\"prompt_tokens\":5}}\ndat: {\"usage\":{\"prompt_tokens\":5}}\n\n", tokens{}},
		"capitals in the type":                      {"Application/JSON", chat, tokens{19, 10, true}},
		"parameters that are none":                  {"application/json; charset", chat, tokens{19, 10, true}},
		"a type with a suffix":                      {"application/json-seq", chat, tokens{}},
		"another type":                              {"text/plain", chat, tokens{}},
		"two types":                                 {"text/html, application/json", chat, tokens{}},
		"no type":                                   {"", chat, tokens{}},
		"nothing":                                   {jsonType, "", tokens{}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 7, 64, 1 << 20} {
				if got := meter(tt.contentType, tt.answer, size); got != tt.want {
					t.Errorf("%+v, want %+v, in pieces of %d", got, tt.want, size)
				}
			}
		})
	}
}

// TestAnAnswerOfAnyLengthIsRead has the usage behind more than anybody would keep.
func TestAnAnswerOfAnyLengthIsRead(t *testing.T) {
	long := strings.Repeat("0.0023,", 1<<20)
	if got, want := meter(jsonType, `{"data":[{"embedding":[`+long+`0]}],"usage":{"prompt_tokens":8}}`, 32<<10), (tokens{8, 0, true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	text := strings.Repeat(`\"{[ `, 1<<20)
	if got, want := meter(eventType, `data: {"response":{"output":"`+text+`","usage":{"input_tokens":1,"output_tokens":2}}}`, 32<<10), (tokens{1, 2, true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	deep := strings.Repeat("[", 1<<20)
	if got := meter(jsonType, deep+`{"usage":{"prompt_tokens":8}}`, 32<<10); got.known {
		t.Errorf("%+v", got)
	}
}

// TestAMeterKeepsNothing: it is of one size and has no pointer, so there is nothing that an
// answer could make larger.
func TestAMeterKeepsNothing(t *testing.T) {
	if size := reflect.TypeFor[usage.Meter]().Size(); size > 256 {
		t.Errorf("a Meter has %d bytes", size)
	}
	var flat func(typ reflect.Type)
	flat = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Struct:
			for f := range typ.Fields() {
				flat(f.Type)
			}
		case reflect.Array:
			flat(typ.Elem())
		case reflect.Bool, reflect.Int, reflect.Uint8, reflect.Uint64:
		default:
			t.Errorf("a Meter holds a %s", typ)
		}
	}
	flat(reflect.TypeFor[usage.Meter]())
}

func TestReadingDoesNotAllocate(t *testing.T) {
	for contentType, answer := range map[string]string{jsonType: chat + message, eventType: chatStream + responsesStream + messageStream, "text/plain": chat} {
		m, p := usage.New(contentType), []byte(answer)
		if n := testing.AllocsPerRun(100, func() { _, _ = m.Write(p) }); n != 0 {
			t.Errorf("%v allocations for %s", n, contentType)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	delta := "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" and the rest of a sentence\"}}\n\n"
	for name, c := range map[string]struct{ contentType, answer string }{
		"events without a usage": {eventType, strings.Repeat(delta, 64)},
		"embeddings":             {jsonType, strings.Repeat("0.0023064255,-0.009327292,", 512)},
		"text":                   {jsonType, `{"content":"` + strings.Repeat("a sentence of a model. ", 512) + `"}`},
		"another type":           {"text/html", strings.Repeat(delta, 64)},
	} {
		b.Run(name, func(b *testing.B) {
			m, p := usage.New(c.contentType), []byte(c.answer)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = m.Write(p)
			}
		})
	}
}
