package rewrite

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/inject/placeholder"
)

// json rewrites the strings of a JSON text that are values, not names. Every byte
// outside the placeholders stays as it is; values are escaped.
func (j *Job) json(body []byte) ([]byte, error) {
	var out []byte
	done := 0
	for i := 0; i < len(body); i++ {
		if body[i] != '"' {
			continue
		}
		end := stringEnd(body, i)
		if token := body[i+1 : end]; mayHold(token) {
			text, err := j.jsonString(token, isName(body, end+1))
			if err != nil {
				return nil, err
			}
			if text != nil {
				out = append(append(out, body[done:i+1]...), text...)
				done = end
			}
			if len(out) > MaxOutput {
				return nil, tooLarge()
			}
		}
		i = end
	}
	if done == 0 {
		return body, cleanBytes(body, "a JSON body")
	}
	out = append(out, body[done:]...)
	if len(out) > MaxOutput {
		return nil, tooLarge()
	}
	return out, cleanBytes(out, "a JSON body")
}

// stringEnd is where the string that starts at i has its closing quote. The text is
// valid JSON.
func stringEnd(body []byte, i int) int {
	for i++; body[i] != '"'; i++ {
		if body[i] == '\\' {
			i++
		}
	}
	return i
}

// isName reports whether the string before i names a member.
func isName(body []byte, i int) bool {
	for i < len(body) && strings.IndexByte(" \t\r\n", body[i]) >= 0 {
		i++
	}
	return i < len(body) && body[i] == ':'
}

// mayHold is a cheap look for strings that need a closer one.
func mayHold(token []byte) bool {
	return bytes.Contains(token, []byte(`\u`)) || placeholder.FoundBytes(token)
}

// jsonString rewrites the inside of one string; nil if there is no placeholder.
func (j *Job) jsonString(token []byte, name bool) ([]byte, error) {
	text, at := decodeJSON(token)
	if !placeholder.Found(text) {
		return nil, nil
	}
	if name {
		return nil, inject.Misplaced("the name of a JSON member")
	}
	var out []byte
	done := 0
	_, err := placeholder.Replace(text, func(ref placeholder.Reference, start, end int) (string, error) {
		value, err := j.value(ref, validText)
		if err != nil {
			return "", err
		}
		out = append(append(out, token[done:at[start]]...), escapeJSON(value)...)
		done = at[end]
		if len(out) > MaxOutput {
			return "", tooLarge()
		}
		return "", nil
	})
	if err != nil {
		return nil, err
	}
	out = append(out, token[done:]...)
	if left, _ := decodeJSON(out); placeholder.Found(left) {
		return nil, inject.Misplaced("a JSON string")
	}
	return out, nil
}

// decodeJSON reads the inside of a JSON string; at has, for each byte of the text
// and for its end, where it begins in the token.
func decodeJSON(token []byte) (text string, at []int) {
	out := make([]byte, 0, len(token))
	at = make([]int, 0, len(token)+1)
	for i := 0; i < len(token); {
		start := i
		size := len(out)
		if token[i] != '\\' || i+1 >= len(token) {
			out = append(out, token[i])
			i++
		} else {
			var r rune
			r, i = escapeAt(token, i)
			out = utf8.AppendRune(out, r)
		}
		for range len(out) - size {
			at = append(at, start)
		}
	}
	return string(out), append(at, len(token))
}

// escapeAt decodes the escape at i and returns where it ends.
func escapeAt(token []byte, i int) (rune, int) {
	switch c := token[i+1]; c {
	case 'u':
		r, ok := unicodeEscape(token, i)
		if !ok {
			return utf8.RuneError, i + 2
		}
		if low, ok := unicodeEscape(token, i+6); ok && utf16.IsSurrogate(r) {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, i + 12
			}
		}
		return r, i + 6
	case 'b', 'f', 'n', 'r', 't':
		return rune("\b\f\n\r\t"[strings.IndexByte("bfnrt", c)]), i + 2
	default:
		return rune(c), i + 2
	}
}

func unicodeEscape(token []byte, i int) (rune, bool) {
	if i+6 > len(token) || token[i] != '\\' || token[i+1] != 'u' {
		return 0, false
	}
	r := rune(0)
	for _, c := range token[i+2 : i+6] {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		if digit < 0 {
			return 0, false
		}
		r = r<<4 | rune(digit)
	}
	return r, true
}

// escapeJSON writes a value inside a JSON string.
func escapeJSON(s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic("BUG: a string is not marshalled: " + err.Error())
	}
	return quoted[1 : len(quoted)-1]
}

// validText is what may stand in a text of UTF-8.
func validText(s string) string {
	if !utf8.ValidString(s) {
		return "it is not UTF-8"
	}
	return ""
}
