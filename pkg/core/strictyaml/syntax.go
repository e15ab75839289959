package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line ([0-9]{1,9}): (.*)$`)

// syntax reports an error of the YAML reader, which knows the line at best.
func (r *reader) syntax(err error, data []byte) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = m[2]
	}
	line = min(max(line, 1), 1+bytes.Count(data, []byte{'\n'}))
	r.reportAt(Position{brokenLine(data, line), 1}, "", "this is not valid YAML: %s%s", Clip(text), advice(text))
}

// usual says what is usually wrong when the YAML reader gives up with these words.
var usual = []struct{ words, advice string }{
	{"expected alphabetic or numeric character", "quote text that starts with * or &"},
	{"tab character", "indent with spaces"},
	{"cannot start any token", "indent with spaces, and quote text that starts with @, % or a backtick"},
	{"expected node content", "close each [ and {"},
	{"expected ',' or", "close each [ and {, and quote text that contains one of [ ] { } ,"},
	{"unexpected end of stream", "close the quotation mark"},
	{"could not find expected ':'", "write key: value, with a space after the colon"},
	{"mapping values are not allowed", "check the indentation, and quote text that contains a colon and a space"},
	{"expected", "check that the line is indented like its neighbours"},
}

func advice(text string) string {
	for _, u := range usual {
		if strings.Contains(text, u.words) {
			return "; " + u.advice
		}
	}
	return ""
}

// maxRetried bounds the bytes that are read again to find the line of a mistake.
const maxRetried = 4 * MaxBytes

// brokenLine is the line after the longest beginning of the file that is valid YAML. The
// YAML reader names the line where the list or map around the mistake begins; nothing
// before that is tried. It is also the answer where maxRetried is not enough.
func brokenLine(data []byte, reported int) int {
	line := 1 + bytes.Count(data, []byte{'\n'})
	for budget := maxRetried; line > reported; line-- {
		data = data[:max(0, bytes.LastIndexByte(data, '\n'))]
		if budget -= len(data); budget < 0 {
			return reported
		}
		if validYAML(data) {
			return line
		}
	}
	return reported
}

func validYAML(data []byte) bool {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}
