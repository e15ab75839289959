package usage_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inference/usage"
)

// FuzzMeter holds that any bytes, cut in any way, are read as when they come at once; and
// that what is JSON is read as encoding/json and whole texts would have it.
func FuzzMeter(f *testing.F) {
	for i, s := range []string{chat, completion, embedding, responses, message, `{"usage":{"prompt_tokens":1e3}}`, `{"usage":{"input_tokens":-1}} {"usage":{}}`, `}{"usage":{"output_tokens":1`} {
		f.Add([]byte(s), false, uint64(i))
	}
	for i, s := range []string{chatStream, responsesStream, messageStream, "data:{\"usage\":\ndata:{\"input_tokens\":5}}\r\n\r\n", "data\n\ndata:\n: x\n\r\n"} {
		f.Add([]byte(s), true, uint64(i))
	}
	f.Fuzz(func(t *testing.T, answer []byte, stream bool, seed uint64) {
		contentType := jsonType
		if stream {
			contentType = eventType
		}
		whole := meter(contentType, string(answer), len(answer))
		m, random := usage.New(contentType), rand.New(rand.NewPCG(seed, 0))
		for rest := answer; len(rest) > 0; {
			n := random.IntN(len(rest) + 1)
			_, _ = m.Write(rest[:n])
			rest = rest[n:]
		}
		if in, out, known := m.Tokens(); (tokens{in, out, known}) != whole {
			t.Errorf("%d %d %t in pieces, %+v at once", in, out, known, whole)
		}
		if bytewise := meter(contentType, string(answer), 1); bytewise != whole {
			t.Errorf("%+v byte by byte, %+v at once", bytewise, whole)
		}
		if !whole.known && (whole.in != 0 || whole.out != 0) {
			t.Errorf("%+v of what is not known", whole)
		}
		if want, valid := slowly(answer, stream); valid && want != whole {
			t.Errorf("%+v, and encoding/json has %+v", whole, want)
		}
	})
}

// slowly reads an answer of which every text is JSON with encoding/json, all at once.
func slowly(answer []byte, stream bool) (result tokens, valid bool) {
	texts := []string{string(answer)}
	if stream {
		texts = eventsOf(string(answer))
	}
	r := reader{said: make(map[string]uint64)}
	for _, text := range texts {
		switch {
		case strings.TrimSpace(text) == "[DONE]" || stream && strings.Trim(text, " \t\r\n") == "":
		case !json.Valid([]byte(text)):
			return tokens{}, false
		default:
			r.read([]byte(text))
		}
	}
	if len(r.said) == 0 || r.wrong {
		return tokens{}, true
	}
	in, prompted := r.said["prompt_tokens"]
	if !prompted {
		in = r.said["input_tokens"] + r.said["cache_creation_input_tokens"] + r.said["cache_read_input_tokens"]
	}
	return tokens{in, r.said["output_tokens"], true}, true
}

// eventsOf are the data of the events of a stream, the last one whether it ends or not.
func eventsOf(stream string) []string {
	var all []string
	event := ""
	for line := range strings.SplitSeq(stream, "\n") {
		line = strings.TrimLeft(line, "\r") // of a line that is empty but for it
		if text, ok := strings.CutPrefix(line, "data:"); ok {
			event += text + "\n"
		}
		if line == "" {
			all = append(all, event)
			event = ""
		}
	}
	return append(all, event)
}

// reader walks through JSON texts and notes what their usages say.
type reader struct {
	text  []byte
	d     *json.Decoder
	said  map[string]uint64
	wrong bool
}

func (r *reader) read(text []byte) {
	r.text, r.d = text, json.NewDecoder(bytes.NewReader(text))
	r.d.UseNumber()
	r.value("")
}

func (r *reader) value(path string) {
	token, err := r.d.Token()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	switch token := token.(type) {
	case json.Delim:
		for r.d.More() {
			step := "[]"
			if token == '{' {
				step = r.key()
			}
			r.value(path + "/" + step)
		}
		_, _ = r.d.Token()
	case json.Number:
		r.number(path, token.String())
	}
}

// key is a member's name, unless it is written with escapes.
func (r *reader) key() string {
	token, _ := r.d.Token()
	name, _ := token.(string)
	if !bytes.HasSuffix(r.text[:r.d.InputOffset()], []byte(`"`+name+`"`)) || strings.Contains(name, "/") {
		return "?"
	}
	return name
}

func (r *reader) number(path, text string) {
	for _, outer := range []string{"/usage/", "/message/usage/", "/response/usage/"} {
		name, ok := strings.CutPrefix(path, outer)
		switch name {
		case "completion_tokens":
			name = "output_tokens"
		case "prompt_tokens", "input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens":
		default:
			ok = false
		}
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		r.wrong = r.wrong || err != nil || n > 1e12
		r.said[name] = n
	}
}
