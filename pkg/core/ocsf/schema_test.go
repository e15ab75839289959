package ocsf

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// schema is testdata/schema.json: the tables of what each class may and must carry.
type schema struct {
	Activities, Enums map[string]map[string]string
	Pairs             []string
	Classes           map[string]struct {
		Name               string
		Category           int
		CategoryName       string `json:"category_name"`
		Profiles           []string
		OfAttributes       map[string]string `json:"profiles_of_attributes"` // of a record with the attribute: a profile more
		Required, Optional []string
	}
	Base      struct{ Required, Optional []string }
	Objects   map[string]map[string]string
	Types     map[string]string
	RuleTypes []string `json:"rule_types"`
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	data, err := os.ReadFile("testdata/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	s := &schema{}
	if err := json.Unmarshal(data, s); err != nil {
		t.Fatal(err)
	}
	uids := make(map[uint32]bool)
	for _, c := range classes {
		uids[c.uid] = true
	}
	if len(s.Classes) != len(uids) || len(s.Objects) == 0 {
		t.Fatalf("the schema has %d classes, the package %d", len(s.Classes), len(uids))
	}
	return s
}

// check returns everything that is wrong with a record.
func (s *schema) check(line []byte) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	r := make(map[string]any)
	d := json.NewDecoder(strings.NewReader(string(line)))
	d.UseNumber()
	if err := d.Decode(&r); err != nil {
		return []string{err.Error()}
	}
	uid, activity := fmt.Sprint(r["class_uid"]), fmt.Sprint(r["activity_id"])
	c, ok := s.Classes[uid]
	if !ok {
		return []string{"class " + uid}
	}
	label := s.Activities[uid][activity]
	if label == "" || r["activity_name"] != label {
		bad("activity %s is named %v, not %q", activity, r["activity_name"], label)
	}
	want := uid + fmt.Sprintf("%02s", activity)
	if uid == "0" { // class times 100 and activity
		want = activity
	}
	if fmt.Sprint(r["type_uid"]) != want {
		bad("type_uid %v, want %s", r["type_uid"], want)
	}
	if want := c.Name + ": " + label; r["type_name"] != want || r["class_name"] != c.Name {
		bad("type_name %v, class_name %v", r["type_name"], r["class_name"])
	}
	if fmt.Sprint(r["category_uid"]) != strconv.Itoa(c.Category) || r["category_name"] != c.CategoryName {
		bad("category %v %v", r["category_uid"], r["category_name"])
	}
	for name, labels := range s.Enums {
		id, has := r[name+"_id"]
		if text, labelled := r[name]; has != labelled || has && labels[fmt.Sprint(id)] != text {
			bad("%s_id %v is labelled %v", name, id, text)
		}
	}
	if _, has := r["action_id"]; has && !slices.Contains(s.Pairs, fmt.Sprintf("%v/%v", r["action_id"], r["disposition_id"])) {
		bad("action %v with disposition %v", r["action_id"], r["disposition_id"])
	}
	may := slices.Concat(s.Base.Required, s.Base.Optional, c.Required, c.Optional)
	for _, name := range slices.Concat(s.Base.Required, c.Required) {
		if _, has := r[name]; !has {
			bad("%s is missing", name)
		}
	}
	for name, v := range r {
		enum := s.Enums[name] != nil || s.Enums[strings.TrimSuffix(name, "_id")] != nil
		if !slices.Contains(may, name) && !slices.Contains(may, name+"_id") {
			if enum && slices.Contains([]string{"severity", "severity_id"}, name) {
				continue
			}
			bad("%s has no place in class %s", name, uid)
			continue
		}
		switch {
		case enum:
		case s.Types[name] != "":
			s.value(name, s.Types[name], v, bad)
		default:
			s.value(name, name, v, bad)
		}
	}
	profiles := slices.Clone(c.Profiles)
	for attribute, profile := range c.OfAttributes {
		if _, has := r[attribute]; has {
			profiles = append(profiles, profile)
		}
	}
	s.details(r, profiles, bad)
	return problems
}

func (s *schema) details(r map[string]any, profiles []string, bad func(string, ...any)) {
	meta, _ := r["metadata"].(map[string]any)
	if got := fmt.Sprint(meta["profiles"]); got != fmt.Sprint(profiles) {
		bad("profiles %s, want %v", got, profiles)
	}
	if meta["version"] != "1.8.0" {
		bad("schema version %v", meta["version"])
	}
	if rule, ok := r["firewall_rule"].(map[string]any); ok && !slices.Contains(s.RuleTypes, fmt.Sprint(rule["type"])) {
		bad("firewall_rule.type %v", rule["type"])
	}
	if dst, ok := r["dst_endpoint"].(map[string]any); ok && (dst["ip"] == nil) == (dst["domain"] == nil) {
		bad("dst_endpoint %v has not exactly one of ip and domain", dst)
	}
	if src, ok := r["src_endpoint"].(map[string]any); ok && (src["name"] == nil) == (src["ip"] == nil || src["port"] == nil) {
		bad("src_endpoint %v has not exactly one of name, and ip with port", src)
	}
	if actor, ok := r["actor"].(map[string]any); ok && (actor["process"] == nil) == (actor["user"] == nil) {
		bad("actor %v has not exactly one of process and user", actor)
	}
}

// value checks one value against a type or a named object.
func (s *schema) value(path, kind string, v any, bad func(string, ...any)) {
	ok := true
	switch kind {
	case "any":
	case "string":
		_, ok = v.(string)
	case "boolean":
		_, ok = v.(bool)
	case "integer":
		n, is := v.(json.Number)
		ok = is && !strings.ContainsAny(n.String(), ".eE")
	default:
		if element, is := strings.CutPrefix(kind, "["); is {
			list, isList := v.([]any)
			ok = isList && len(list) > 0
			for i, v := range list {
				s.value(fmt.Sprintf("%s[%d]", path, i), strings.TrimSuffix(element, "]"), v, bad)
			}
			break
		}
		s.object(path, kind, v, bad)
	}
	if !ok {
		bad("%s is %v, not a %s", path, v, kind)
	}
}

func (s *schema) object(path, kind string, v any, bad func(string, ...any)) {
	members, known := s.Objects[kind]
	o, is := v.(map[string]any)
	if !known || !is {
		bad("%s is %v, not a %s", path, v, kind)
		return
	}
	for name, kind := range members {
		name, required := strings.CutSuffix(name, "!")
		if v, has := o[name]; has {
			s.value(path+"."+name, kind, v, bad)
		} else if required {
			bad("%s.%s is missing", path, name)
		}
	}
	for name := range maps.Keys(o) {
		if members[name] == "" && members[name+"!"] == "" {
			bad("%s.%s is not in the schema", path, name)
		}
	}
}

// allKinds are events of every kind, verdict, reason, stage and application there is,
// with everything set and with nothing set.
func allKinds() []core.Event {
	full := core.Event{
		Time: time.UnixMilli(1790000000123), RequestID: "0123456789abcdef", Instance: here.Instance, Host: "api.example.com", Port: 443,
		Protocol: "tcp", Path: "/v1", Status: 200, Address: "192.0.2.7", Rule: "api", Process: core.ProcessRef{PID: 7}, UID: 1000, Detail: "why",
		Program: core.Program{Path: "/usr/bin/git", SHA256: "aa"}, Ancestors: []core.Program{{Path: "/bin/sh", SHA256: "bb"}, {Path: "/bin/tini"}},
		ExitCode: 1, BytesUp: 1, BytesDn: math.MaxUint64, Duration: time.Second, Count: 3, Generation: 4, Source: netip.MustParseAddrPort("127.0.0.1:4711"),
		Model: "small", Provider: "here", TokensIn: 5, TokensOut: 6,
	}
	var out []core.Event
	for _, e := range []core.Event{full, {}} {
		for e.Kind = core.EventUnspecified; e.Kind <= core.EventInference+1; e.Kind++ {
			for _, e.Verdict = range []core.Verdict{core.Deny, core.Allow} {
				for _, e.Reason = range append(core.Reasons(), "started", "stopped", "policy_loaded", core.EventAdminDecided, core.EventLaunched, core.EventExited, core.EventGatewayOpened, core.EventRelayClosed, core.EventGatewayLost, core.EventRelayRefused) {
					for _, e.Stage = range []core.Stage{core.StageConnect, core.StageRequest, core.StageSSRF, core.StageTLS, core.StageListen, core.StageBypass, core.StageConfig, core.StageSSH, core.StageAPI, core.StageGateway} {
						for _, e.Method = range []string{"", "GET", "PROPFIND"} {
							e.Severity = core.Severity(len(e.Reason) % 6)
							e.Application = []core.Application{"", core.ApplicationREST, core.ApplicationGraphQL, core.ApplicationWebSocket, core.ApplicationJSONRPC, core.ApplicationMCP}[len(e.Reason)%6]
							out = append(out, e)
						}
					}
				}
			}
		}
	}
	return out
}

func TestRecordsAreOfTheSchema(t *testing.T) {
	s, x := readSchema(t), NewEncoder(here)
	seen := make(map[*class]bool)
	for _, e := range allKinds() {
		line := x.Append(nil, &e)
		seen[shapeOf(&e).class] = true
		if problems := s.check(line); len(problems) > 0 {
			t.Fatalf("%s\n%s", strings.Join(problems, "\n"), line)
		}
	}
	if len(seen) != len(classes) {
		t.Errorf("%d of %d classes were checked", len(seen), len(classes))
	}
}

// TestTheSchemaRefuses shows that the check can fail.
func TestTheSchemaRefuses(t *testing.T) {
	s := readSchema(t)
	e := allKinds()[0]
	e.Kind, e.Method, e.Reason = core.EventConnection, "GET", core.ReasonAllowed
	good := string(NewEncoder(here).Append(nil, &e))
	if p := s.check([]byte(good)); len(p) > 0 {
		t.Fatal(p)
	}
	for name, c := range map[string][2]string{
		"a label that is not the number's": {`"severity":"Low"`, `"severity":"High"`},
		"an unknown member":                {`"time":`, `"thyme":1,"time":`},
		"an unknown member of an object":   {`"http_method"`, `"query":"x","http_method"`},
		"a missing member":                 {`"device":`, `"unmapped2":`},
		"a string for a number":            {`"code":200`, `"code":"200"`},
		"another class's activity":         {`"activity_name":"Get"`, `"activity_name":"Open"`},
		"another type":                     {`"type_uid":400203`, `"type_uid":400103`},
		"a pair that is none":              {`"disposition_id":1,"disposition":"Allowed"`, `"disposition_id":2,"disposition":"Blocked"`},
	} {
		t.Run(name, func(t *testing.T) {
			broken := strings.Replace(good, c[0], c[1], 1)
			if name == "a label that is not the number's" {
				broken = strings.Replace(good, `"severity":"`, `"severity":"Not `, 1)
			}
			if name == "a pair that is none" {
				broken = strings.NewReplacer(`"disposition_id":1`, `"disposition_id":2`, `"disposition_id":2`, `"disposition_id":1`,
					`"disposition":"Allowed"`, `"disposition":"Blocked"`, `"disposition":"Blocked"`, `"disposition":"Allowed"`).Replace(good)
			}
			if broken == good {
				t.Fatalf("nothing was broken in %s", good)
			}
			if len(s.check([]byte(broken))) == 0 {
				t.Errorf("accepted: %s", broken)
			}
		})
	}
}
