package e2e_test

import (
	"slices"
	"strings"
	"testing"
)

// TestTheSameTargetIsReadTheSameWayByEveryEntry (B28, B29, B47): one reading of a
// target feeds the rule and the origin, whichever way the request came.
func TestTheSameTargetIsReadTheSameWayByEveryEntry(t *testing.T) {
	a := newArena(t)
	long := "/ok/" + strings.Repeat("a", 4096-4)
	for name, tc := range map[string]struct {
		target    string
		arrives   string // what the origin sees; empty: refused
		reason    string
		malformed bool // even as a URL
	}{
		"B28 a dot segment":                    {"/ok/a/./b", "/ok/a/b", "", false},
		"B28 a double dot segment":             {"/ok/a/../b", "/ok/b", "", false},
		"B28 double dots out of what is ok":    {"/ok/../denied", "", "policy_denied", false},
		"B28 double dots above the root":       {"/../ok/b", "", "invalid_request_target", false},
		"B28 two slashes":                      {"/ok//b", "/ok/b", "", false},
		"B28 two slashes first":                {"//denied", "", "policy_denied", false},
		"B28 encoded dots":                     {"/ok/%2e%2e/denied", "", "policy_denied", false},
		"B28 one dot encoded":                  {"/ok/.%2e/denied", "", "policy_denied", false},
		"B28 dots with a parameter":            {"/ok/..;/denied", "", "policy_denied", false},
		"B28 dots with a named parameter":      {"/ok/a/..;x=1/../denied", "", "policy_denied", false},
		"B28 a path parameter":                 {"/ok/a;v=1/b", "/ok/a/b", "", false},
		"B28 a session in the path":            {"/ok/a;jsessionid=1", "/ok/a", "", false},
		"B28 an encoded slash":                 {"/ok/a%2Fb", "", "invalid_request_target", false},
		"B28 an encoded slash beside dots":     {"/ok/a%2f..%2fb", "", "invalid_request_target", false},
		"B28 an encoded letter":                {"/ok/%41", "/ok/A", "", false},
		"B28 an encoded tilde":                 {"/ok/%7e", "/ok/~", "", false},
		"B28 an encoded space":                 {"/ok/a%20b", "/ok/a%20b", "", false},
		"B28 encoded twice":                    {"/ok/a%252e", "/ok/a%252e", "", false},
		"B28 encoded twice, hiding dots":       {"/ok/%252e%252e/b", "/ok/%252e%252e/b", "", false},
		"B28 a NUL":                            {"/ok/a%00", "", "invalid_request_target", false},
		"B28 a NUL before an extension":        {"/ok/a%00.png", "", "invalid_request_target", false},
		"B28 an encoded line feed":             {"/ok/a%0ab", "", "invalid_request_target", false},
		"B28 half an escape":                   {"/ok/a%4", "", "invalid_request_target", true},
		"B28 no escape":                        {"/ok/a%zz", "", "invalid_request_target", true},
		"B28 a fragment":                       {"/ok/a#b", "", "invalid_request_target", false},
		"B28 a fragment after the query":       {"/ok/a?b#c", "", "invalid_request_target", false},
		"B28 another case":                     {"/OK/a", "", "policy_denied", false},
		"B28 a query with dots":                {"/ok/a?b=/../c", "/ok/a?b=/../c", "", false},
		"B28 a second question mark":           {"/ok/a?b?/../c", "/ok/a?b?/../c", "", false},
		"B28 an encoded question mark":         {"/ok/a%3f/../b", "/ok/b", "", false},
		"B28 an empty query":                   {"/ok/a?", "/ok/a?", "", false},
		"B28 a directory":                      {"/ok/a/", "/ok/a/", "", false},
		"B28 dots last":                        {"/ok/a/b/..", "/ok/a/", "", false},
		"B28 the longest target (absolute: +)": {long[:4096-64], long[:4096-64], "", false},
		"B28 one byte too many":                {long + "a", "", "invalid_request_target", false},
		"B28 another host inside the path":     {"/ok/http://other.demo.test:7009/x", "/ok/http:/other.demo.test:7009/x", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range append(slices.Clone(http1Entries), inHTTP2) {
				got := a.ask(t, e, "GET", tc.target, "")
				reason := tc.reason
				if e == inHTTP2 && got.reason == "PROTOCOL_ERROR" && tc.malformed {
					got.reason, reason = tc.reason, "bad_request" // its library resets what is no URL
				}
				if tc.reason != got.reason || (got.status == 200) != (tc.reason == "") {
					t.Errorf("%s: answered %d %q %q, want reason %q", e, got.status, got.reason, got.body, tc.reason)
				}
				var arrived []string
				if tc.arrives != "" {
					arrived = []string{"GET " + tc.arrives}
				}
				a.oracle(t, arrived, reason)
			}
		})
	}
	a.settled(t)
}

// TestMethodsAreTakenLiterally (B29).
func TestMethodsAreTakenLiterally(t *testing.T) {
	a := newArena(t)
	for _, tc := range []struct {
		method, reason string
	}{
		{"GET", ""}, {"HEAD", ""}, {"POST", ""}, {"DELETE", "policy_denied"}, {"TRACE", "policy_denied"}, {"PROPFIND", "policy_denied"},
		{"TRACK", "policy_denied"}, {"CONNECTX", "policy_denied"}, {strings.Repeat("G", 4096), "bad_request"}, {strings.Repeat("G", 33), "bad_request"},
	} {
		t.Run("B29 "+tc.method[:min(20, len(tc.method))], func(t *testing.T) {
			for _, e := range append(slices.Clone(http1Entries), inHTTP2) {
				got := a.ask(t, e, tc.method, "/ok/a", "")
				if tc.method == "HEAD" && got.status == 200 {
					got.reason = ""
				}
				if got.reason != tc.reason {
					t.Errorf("%s: answered %d %q, want reason %q", e, got.status, got.reason, tc.reason)
				}
				var arrived []string
				if tc.reason == "" {
					arrived = []string{tc.method + " /ok/a"}
				}
				a.oracle(t, arrived, tc.reason)
			}
		})
	}
	a.settled(t)
}
