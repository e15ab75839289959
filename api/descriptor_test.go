package api_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	gatewayv1 "github.com/splitpod/splitpod/api/gateway/v1"
	supervisorv1 "github.com/splitpod/splitpod/api/supervisor/v1"
)

// contracts are the published files of each folder.
var contracts = map[string][]protoreflect.FileDescriptor{
	"supervisor/v1": {supervisorv1.File_api_supervisor_v1_supervisor_proto},
	"gateway/v1": {gatewayv1.File_api_gateway_v1_openshell_proto, gatewayv1.File_api_gateway_v1_inference_proto,
		gatewayv1.File_api_gateway_v1_sandbox_proto},
}

var update = flag.Bool("update", false, "write additions to the golden descriptor; removals are refused")

// TestDescriptorKeepsEveryPublishedLine: a line of a golden file is a promise to the other
// daemon's previous release, or one that the gateways of others rely on. A line that is gone
// or changed is a breaking change and needs a v2 beside v1; a new line is written with
// -update.
func TestDescriptorKeepsEveryPublishedLine(t *testing.T) {
	for folder, files := range contracts {
		t.Run(folder, func(t *testing.T) {
			path := folder + "/testdata/descriptor.golden"
			var now []string
			for _, f := range files {
				now = append(now, describe(f)...)
			}
			slices.Sort(now)
			if len(now) < 100 {
				t.Fatalf("only %d descriptor lines were read", len(now))
			}
			missing, added := compare(readGolden(t, path), now)
			for _, line := range missing {
				t.Errorf("breaking change: published line is gone or changed: %s", line)
			}
			if len(missing) > 0 {
				return
			}
			if *update {
				if err := os.WriteFile(path, []byte(strings.Join(now, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, line := range added {
				t.Errorf("not in the golden descriptor yet (go test ./api -update): %s", line)
			}
		})
	}
}

// TestDescriptorCheckSeesBreakingChanges feeds the comparison what it must catch.
func TestDescriptorCheckSeesBreakingChanges(t *testing.T) {
	golden := describe(supervisorv1.File_api_supervisor_v1_supervisor_proto)
	for name, edit := range map[string]func(string) string{
		"renumbered field": func(s string) string { return strings.Replace(s, "max_revision = 2", "max_revision = 9", 1) },
		"retyped field":    func(s string) string { return strings.Replace(s, "uint32 max_revision", "string max_revision", 1) },
		"renamed enum":     func(s string) string { return strings.Replace(s, "MODE_ATTACH", "MODE_JOIN", 1) },
		"removed method": func(s string) string {
			if strings.Contains(s, "rpc Identify(") {
				return ""
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			var changed []string
			for _, line := range golden {
				changed = append(changed, edit(line))
			}
			if missing, _ := compare(golden, changed); len(missing) != 1 {
				t.Errorf("missing = %q, want exactly one line", missing)
			}
		})
	}
}

func readGolden(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		if *update && os.IsNotExist(err) {
			return nil
		}
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func compare(golden, now []string) (missing, added []string) {
	for _, line := range golden {
		if !slices.Contains(now, line) {
			missing = append(missing, line)
		}
	}
	for _, line := range now {
		if !slices.Contains(golden, line) {
			added = append(added, line)
		}
	}
	return missing, added
}

// describe renders every name, number and type a peer can depend on, one a line.
func describe(f protoreflect.FileDescriptor) []string {
	out := []string{fmt.Sprintf("package %s", f.Package())}
	messages := f.Messages()
	for i := range messages.Len() {
		m := messages.Get(i)
		if fields := m.Fields(); fields.Len() > 0 {
			for j := range fields.Len() {
				fd := fields.Get(j)
				out = append(out, fmt.Sprintf("message %s: %s %s %s = %d", m.Name(), fd.Cardinality(), typeName(fd), fd.Name(), fd.Number()))
			}
		}
	}
	enums := f.Enums()
	for i := range enums.Len() {
		values := enums.Get(i).Values()
		for j := range values.Len() {
			out = append(out, fmt.Sprintf("enum %s: %s = %d", enums.Get(i).Name(), values.Get(j).Name(), values.Get(j).Number()))
		}
	}
	services := f.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			out = append(out, fmt.Sprintf("service %s: rpc %s(%s) returns (%s) client_stream=%t server_stream=%t",
				services.Get(i).Name(), m.Name(), m.Input().Name(), m.Output().Name(), m.IsStreamingClient(), m.IsStreamingServer()))
		}
	}
	return out
}

func typeName(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return fmt.Sprintf("map<%s, %s>", typeName(fd.MapKey()), typeName(fd.MapValue()))
	case fd.Message() != nil:
		return string(fd.Message().Name())
	case fd.Enum() != nil:
		return string(fd.Enum().Name())
	default:
		return fd.Kind().String()
	}
}
