// Package policydoc reads a policy that a gateway sent as the policy file that says the same.
//
// It answers the threat of a policy that is enforced by half: by a gateway that is newer and
// says something this build does not know, or by a text that means one thing in a message
// and another in a file. The whole message is written as a file, under the names that a file
// has for its fields, and read by the one strict reader of files. So a field that the reader
// does not know is a mistake there, whatever it is, and every check, message and digest is
// that of a file. What has no place in a file at all is refused here: a field without a name
// (unknown to sandbox.proto), patterns that a file cannot say, two values where one counts.
//
// It does not answer a gateway that sends a wide policy, nor what protobuf drops before it is
// seen here: of two entries of a map under one key all but the last, and whatever an entry
// has beside key and value.
package policydoc

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/policyfile"
	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// Read reads a policy. The name is for messages only, which count lines in what Write makes
// of it.
func Read(name string, p *gatewayv1.SandboxPolicy) policyfile.File {
	data, err := Write(p)
	if err != nil {
		return policyfile.File{Err: fmt.Errorf("%s: %w", name, err)}
	}
	sum := sha256.Sum256(data)
	doc, warnings, err := policy.ParseComposed(name, data)
	return policyfile.File{Doc: doc, Warnings: warnings, Digest: hex.EncodeToString(sum[:]), Err: err}
}

// Write is the policy as a file, valid or not. The same policy gives the same bytes. The
// file may say what only the system may (policy.ParseComposed).
func Write(p *gatewayv1.SandboxPolicy) ([]byte, error) {
	if p == nil {
		return nil, errors.New("there is no policy")
	}
	root, err := new(writer).message("", p.ProtoReflect())
	if err != nil {
		return nil, err
	}
	return strictyaml.Write(root), nil
}

// place is what is wrong where.
func place(path, format string, args ...any) error {
	return fmt.Errorf("%s: %s", cmp.Or(path, "the policy"), fmt.Sprintf(format, args...))
}

// writer makes nodes, as long as they fit into a file that is read.
type writer struct {
	size int // of the file at least: the texts, and a line for each value
}

// message is a message as a map. A field that is absent is absent there.
func (w *writer) message(path string, m protoreflect.Message) (*yaml.Node, error) {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		n, _, _ := protowire.ConsumeTag(unknown)
		return nil, place(path, "there is something that this build does not know (field %d of %s); a policy is enforced as a whole or not at all", n, m.Descriptor().Name())
	}
	switch m := m.Interface().(type) {
	case *gatewayv1.NetworkMiddlewareConfig:
		return nil, place(path, "middlewares are not supported")
	case *gatewayv1.L7QueryMatcher:
		switch one, several := m.GetGlob() != "", len(m.GetAny()) > 0; {
		case one == several:
			return nil, place(path, "there has to be one of glob and any")
		case one:
			return w.text(path, m.GetGlob())
		}
	}
	out := newMap()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if err := w.field(out, path, m, fields.Get(i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func newMap() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }

// set adds a key to a map. One that is there already, as the last, holds a map, which grows.
func set(m *yaml.Node, key string, v *yaml.Node) {
	if n := len(m.Content); n > 0 && m.Content[n-2].Value == key {
		m.Content[n-1].Content = append(m.Content[n-1].Content, v.Content...)
		return
	}
	m.Content = append(m.Content, strictyaml.KeyNode(key), v)
}

// named are the fields that have another name in a file.
var named = map[protoreflect.FullName]string{
	"openshell.sandbox.v1.SandboxPolicy.filesystem": "filesystem_policy",
	"openshell.sandbox.v1.NetworkBinary.harness":    "advisor_proposed", // what is left of its meaning
}

// field adds a field of a message to its map.
func (w *writer) field(out *yaml.Node, path string, m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
	key := cmp.Or(named[fd.FullName()], string(fd.Name()))
	path = strictyaml.Field(path, key)
	switch m := m.Interface().(type) {
	case *gatewayv1.FilesystemPolicy:
		if key == "include_workdir" { // absent, it is false here, and true in a file
			set(out, key, boolean(m.GetIncludeWorkdir()))
			return nil
		}
	case *gatewayv1.NetworkEndpoint:
		switch n := m.GetJsonRpcMaxBodyBytes(); {
		case key == "port" && len(m.GetPorts()) > 0: // of which it is one
			if m.GetPort() != 0 && !slices.Contains(m.GetPorts(), m.GetPort()) {
				return place(path, "%d is not one of ports", m.GetPort())
			}
			return nil
		case key == "json_rpc_max_body_bytes" && n > 0: // of mcp, too
			key = "json_rpc"
			if m.GetProtocol() == "mcp" {
				key = "mcp"
			}
			limit := newMap()
			set(limit, "max_body_bytes", number(n))
			set(out, key, limit)
			return nil
		}
	}
	if !m.Has(fd) {
		return nil
	}
	v, err := w.value(path, fd, m.Get(fd))
	if err != nil {
		return err
	}
	set(out, key, v)
	return nil
}

func (w *writer) value(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value) (*yaml.Node, error) {
	switch {
	case fd.IsMap():
		return w.entries(path, fd, v.Map())
	case !fd.IsList():
		return w.single(path, fd, v)
	}
	out := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range v.List().Len() {
		e, err := w.single(path+"["+strconv.Itoa(i)+"]", fd, v.List().Get(i))
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, e)
	}
	return out, nil
}

// entries is a map with keys that its author chose, in their order.
func (w *writer) entries(path string, fd protoreflect.FieldDescriptor, m protoreflect.Map) (*yaml.Node, error) {
	values := make(map[string]protoreflect.Value, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		values[k.String()] = v
		return true
	})
	out := newMap()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		below := strictyaml.Field(path, key)
		if fd.Name() == "params" && strings.Contains(key, ".") {
			return nil, place(below, "a name with a dot stands for a parameter inside another; only those at the top are read")
		}
		if _, err := w.text(below, key); err != nil {
			return nil, err
		}
		v, err := w.single(below, fd.MapValue(), values[key])
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, strictyaml.KeyNode(key), v)
	}
	return out, nil
}

// single is a value that is neither a list nor a map.
func (w *writer) single(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value) (*yaml.Node, error) {
	if w.size += len("    - 1\n"); w.size > strictyaml.MaxBytes {
		return nil, place(path, "the policy would be a file of more than %d bytes", strictyaml.MaxBytes)
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return w.message(path, v.Message())
	case protoreflect.StringKind:
		return w.text(path, v.String())
	case protoreflect.BoolKind:
		return boolean(v.Bool()), nil
	case protoreflect.Uint32Kind:
		return number(uint32(v.Uint())), nil
	}
	return nil, place(path, "a value of this kind has no place in a policy")
}

func (w *writer) text(path, s string) (*yaml.Node, error) {
	if !utf8.ValidString(s) {
		return nil, place(path, "the text is not UTF-8")
	}
	w.size += len(s)
	return strictyaml.TextNode(s), nil
}

func boolean(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatBool(b)}
}

func number(n uint32) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatUint(uint64(n), 10)}
}
