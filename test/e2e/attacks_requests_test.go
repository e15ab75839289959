package e2e_test

import (
	"slices"
	"strings"
	"testing"
)

// TestTheSameTargetIsReadTheSameWayByEveryEntry (B28, B29, B47): one reading of a
// target feeds the rule and the origin, whichever way the request came.
func TestTheSameTargetIsReadTheSameWayByEveryEntry(t *testing.T) {
	a := newSiege(t)
	long := "/ok/" + strings.Repeat("a", 4096-4)
	for name, tc := range map[string]struct {
		target  string
		arrives string // what the origin sees; empty: refused
		reason  string
	}{
		"B28 a dot segment":                    {"/ok/a/./b", "/ok/a/b", ""},
		"B28 a double dot segment":             {"/ok/a/../b", "/ok/b", ""},
		"B28 double dots out of what is ok":    {"/ok/../denied", "", "policy_denied"},
		"B28 double dots above the root":       {"/../ok/b", "", "invalid_request_target"},
		"B28 two slashes":                      {"/ok//b", "/ok/b", ""},
		"B28 two slashes first":                {"//denied", "", "policy_denied"},
		"B28 encoded dots":                     {"/ok/%2e%2e/denied", "", "policy_denied"},
		"B28 one dot encoded":                  {"/ok/.%2e/denied", "", "policy_denied"},
		"B28 dots with a parameter":            {"/ok/..;/denied", "", "policy_denied"},
		"B28 dots with a named parameter":      {"/ok/a/..;x=1/../denied", "", "policy_denied"},
		"B28 a path parameter":                 {"/ok/a;v=1/b", "/ok/a/b", ""},
		"B28 a session in the path":            {"/ok/a;jsessionid=1", "/ok/a", ""},
		"B28 an encoded slash":                 {"/ok/a%2Fb", "", "invalid_request_target"},
		"B28 an encoded slash beside dots":     {"/ok/a%2f..%2fb", "", "invalid_request_target"},
		"B28 an encoded letter":                {"/ok/%41", "/ok/A", ""},
		"B28 an encoded tilde":                 {"/ok/%7e", "/ok/~", ""},
		"B28 an encoded space":                 {"/ok/a%20b", "/ok/a%20b", ""},
		"B28 encoded twice":                    {"/ok/a%252e", "/ok/a%252e", ""},
		"B28 encoded twice, hiding dots":       {"/ok/%252e%252e/b", "/ok/%252e%252e/b", ""},
		"B28 a NUL":                            {"/ok/a%00", "", "invalid_request_target"},
		"B28 a NUL before an extension":        {"/ok/a%00.png", "", "invalid_request_target"},
		"B28 an encoded line feed":             {"/ok/a%0ab", "", "invalid_request_target"},
		"B28 half an escape":                   {"/ok/a%4", "", "invalid_request_target"},
		"B28 no escape":                        {"/ok/a%zz", "", "invalid_request_target"},
		"B28 a fragment":                       {"/ok/a#b", "", "invalid_request_target"},
		"B28 a fragment after the query":       {"/ok/a?b#c", "", "invalid_request_target"},
		"B28 another case":                     {"/OK/a", "", "policy_denied"},
		"B28 a backslash":                      {"/ok/a\\b", "", "invalid_request_target"},
		"B28 a backslash first":                {"\\denied", "", "invalid_request_target"},
		"B28 dots behind a backslash":          {"/ok/a%5c..%5c..%5cdenied", "", "invalid_request_target"},
		"B28 dots in too many bytes":           {"/ok/%c0%ae%c0%ae/denied", "", "invalid_request_target"},
		"B28 a query with dots":                {"/ok/a?b=/../c", "/ok/a?b=/../c", ""},
		"B28 a second question mark":           {"/ok/a?b?/../c", "/ok/a?b?/../c", ""},
		"B28 an encoded question mark":         {"/ok/a%3f/../b", "/ok/b", ""},
		"B28 an empty query":                   {"/ok/a?", "/ok/a?", ""},
		"B28 a directory":                      {"/ok/a/", "/ok/a/", ""},
		"B28 dots last":                        {"/ok/a/b/..", "/ok/a/", ""},
		"B28 the longest target (absolute: +)": {long[:4096-64], long[:4096-64], ""},
		"B28 one byte too many":                {long + "a", "", "invalid_request_target"},
		"B28 another host inside the path":     {"/ok/http://other.demo.test:7009/x", "/ok/http:/other.demo.test:7009/x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range append(slices.Clone(http1Entries), inHTTP2) {
				got := a.ask(t, e, "GET", tc.target, "")
				if tc.reason != got.reason || (got.status == 200) != (tc.reason == "") {
					t.Errorf("%s: answered %d %q %q, want reason %q", e, got.status, got.reason, got.body, tc.reason)
				}
				var arrived []string
				if tc.arrives != "" {
					arrived = []string{"GET " + tc.arrives}
				}
				a.oracle(t, arrived, tc.reason)
			}
		})
	}
	a.settled(t)
}

// TestMethodsAreTakenLiterally (B29).
func TestMethodsAreTakenLiterally(t *testing.T) {
	a := newSiege(t)
	for _, tc := range []struct {
		method, reason string
	}{
		{"GET", ""}, {"get", ""}, {"HEAD", ""}, {"POST", ""}, {"GET\t", "bad_request"}, {"delete", "policy_denied"}, {"DELETE", "policy_denied"}, {"TRACE", "policy_denied"}, {"PROPFIND", "policy_denied"},
		{"TRACK", "policy_denied"}, {"CONNECTX", "policy_denied"}, {strings.Repeat("G", 4096), "bad_request"}, {strings.Repeat("G", 33), "bad_request"},
	} {
		t.Run("B29 "+tc.method[:min(20, len(tc.method))], func(t *testing.T) {
			for _, e := range append(slices.Clone(http1Entries), inHTTP2) {
				got, reason := a.ask(t, e, tc.method, "/ok/a", ""), tc.reason
				if tc.method == "HEAD" && got.status == 200 {
					got.reason = ""
				}
				if tc.method == "GET\t" && e == inTunnel {
					reason = "unsupported_l7_protocol" // it does not begin as HTTP does
				}
				if got.reason != reason {
					t.Errorf("%s: answered %d %q, want reason %q", e, got.status, got.reason, reason)
				}
				var arrived []string
				if tc.reason == "" {
					arrived = []string{tc.method + " /ok/a"}
				}
				a.oracle(t, arrived, reason)
			}
		})
	}
	a.settled(t)
}

// TestAMessageThatMeansTwoThingsGoesNowhere (B22, B23, B25, B31 and what smugglers
// use): each text by every entry of HTTP/1. answers are the statuses of all answers,
// arrives is what the origin got.
func TestAMessageThatMeansTwoThingsGoesNowhere(t *testing.T) {
	a := newSiege(t)
	const post = "POST {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n"
	const get = "GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n"
	const denied = "GET {abs}/denied HTTP/1.1\r\nHost: {host}\r\n\r\n"
	const chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
	refused := func(text string) smuggled { return smuggled{text, []int{400}, "bad_request", nil} }
	for name, tc := range map[string]smuggled{
		"B22 CL.TE":                         refused(post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
		"B22 TE.CL":                         refused(post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n"),
		"B22 TE unknown":                    refused(post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
		"B22 TE chunked, identity":          refused(post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
		"B22 TE identity":                   refused(post + "Transfer-Encoding: identity\r\n\r\n"),
		"B22 TE gzip, chunked":              refused(post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		"B22 TE chunked, chunked":           refused(post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
		"B22 TE twice":                      refused(post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"B22 TE twice, differing":           refused(post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"),
		"B22 TE with a vertical tab":        refused(post + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"),
		"B22 TE in quotes":                  refused(post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
		"B22 TE with a parameter":           refused(post + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
		"B22 TE empty":                      refused(post + "Transfer-Encoding:\r\n\r\n"),
		"B22 TE with an underscore":         refused(post + "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"B22 TE in HTTP/1.0":                refused("POST {abs}/ok/a HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"B22 CL twice, differing":           refused(post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
		"B22 CL in a list":                  refused(post + "Content-Length: 5, 6\r\n\r\nabcdef"),
		"B22 CL in a list of equals":        refused(post + "Content-Length: 5, 5\r\n\r\nabcde"),
		"B22 TE behind a tab":               {post + "Transfer-Encoding:\tchunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + denied, []int{200, 403}, "policy_denied", []string{"POST /ok/a"}},
		"B22 CL with a sign":                refused(post + "Content-Length: +5\r\n\r\nabcde"),
		"B22 CL negative":                   refused(post + "Content-Length: -1\r\n\r\n"),
		"B22 CL hexadecimal":                refused(post + "Content-Length: 0x1\r\n\r\na"),
		"B22 CL with a space inside":        refused(post + "Content-Length: 1 1\r\n\r\nabcdefghijk"),
		"B22 CL beyond 64 bits":             refused(post + "Content-Length: 99999999999999999999\r\n\r\n"),
		"B22 CL empty":                      refused(post + "Content-Length:\r\n\r\n"),
		"B22 CL with an underscore":         refused(post + "Content_Length: 5\r\n\r\nabcde"),
		"B22 CL named by Connection":        refused(post + "Connection: content-length\r\nContent-Length: 1\r\n\r\na"),
		"B22 TE named by Connection":        refused(post + "Connection: close, transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"B22 Host named by Connection":      refused(get + "Connection: host\r\n\r\n"),
		"B22 Connection without a token":    refused(get + "Connection: a b\r\n\r\n"),
		"B23 bare LF behind a field":        refused("GET {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\nX: a\nY: b\r\n\r\n"),
		"B23 bare LF everywhere":            refused("GET {abs}/ok/a HTTP/1.1\nHost: {host}\n\n"),
		"B23 bare CR in a value":            refused(get + "X: a\rY: b\r\n\r\n"),
		"B23 bare CR in the request line":   refused("GET {abs}/ok/a\r HTTP/1.1\r\nHost: {host}\r\n\r\n"),
		"B23 obs-fold":                      refused(get + "X: a\r\n b\r\n\r\n"),
		"B23 obs-fold first":                refused("GET {abs}/ok/a HTTP/1.1\r\n X: a\r\nHost: {host}\r\n\r\n"),
		"B23 NUL in a value":                refused(get + "X: a\x00b\r\n\r\n"),
		"B23 NUL in a name":                 refused(get + "X\x00: a\r\n\r\n"),
		"B23 a space before the colon":      refused(get + "X : a\r\n\r\n"),
		"B23 a tab before the colon":        refused(post + "Content-Length\t: 1\r\n\r\na"),
		"B23 no colon":                      refused(get + "X\r\n\r\n"),
		"B23 no name":                       refused(get + ": a\r\n\r\n"),
		"B23 a name that is no token":       refused(get + "X(y): a\r\n\r\n"),
		"B23 a name beyond ASCII":           refused(get + "X\xc3\xa9: a\r\n\r\n"),
		"B23 a value that is not UTF-8":     refused(get + "X: \xff\xfe\r\n\r\n"),
		"B23 DEL in a value":                refused(get + "X: \x7f\r\n\r\n"),
		"B23 two spaces in the first line":  {"GET  {abs}/ok/a HTTP/1.1\r\nHost: {host}\r\n\r\n", []int{505}, "bad_request", nil},
		"B23 a space at its end":            {"GET {abs}/ok/a HTTP/1.1 \r\nHost: {host}\r\n\r\n", []int{505}, "bad_request", nil},
		"B23 HTTP/1.2":                      {"GET {abs}/ok/a HTTP/1.2\r\nHost: {host}\r\n\r\n", []int{505}, "bad_request", nil},
		"B23 HTTP/2.0 in a line":            {"GET {abs}/ok/a HTTP/2.0\r\nHost: {host}\r\n\r\n", []int{505}, "bad_request", nil},
		"B23 HTTP/1.1 in lower case":        {"GET {abs}/ok/a http/1.1\r\nHost: {host}\r\n\r\n", []int{505}, "bad_request", nil},
		"row 44 no Host":                    refused("GET {abs}/ok/a HTTP/1.1\r\n\r\n"),
		"row 44 two Hosts":                  refused(get + "Host: {host}\r\n\r\n"),
		"row 44 two Hosts, differing":       refused(get + "Host: other.demo.test:7009\r\n\r\n"),
		"row 44 an empty Host":              refused("GET {abs}/ok/a HTTP/1.1\r\nHost:\r\n\r\n"),
		"row 44 a Host with a user":         refused("GET {abs}/ok/a HTTP/1.1\r\nHost: a@{host}\r\n\r\n"),
		"chunk: size in decimal beyond":     {chunked + "ffffffffffffffff0\r\n", []int{400}, "bad_request", []string{}},
		"chunk: 0x":                         {chunked + "0x1\r\na\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: a space before the size":    {chunked + " 1\r\na\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: a sign":                     {chunked + "+1\r\na\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: no size":                    {chunked + "\r\na\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: bare LF":                    {chunked + "1\na\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: data longer than its size":  {chunked + "1\r\nab\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: bare LF in an extension":    {chunked + "1;a\nb\r\na\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: an endless extension":       {chunked + "1;" + strings.Repeat("a", 70000) + "\r\na\r\n0\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: a trailer without a colon":  {chunked + "0\r\nX\r\n\r\n", []int{400}, "bad_request", []string{}},
		"chunk: a trailer is left out":      {chunked + "0\r\nContent-Length: 5\r\n\r\n", []int{200}, "", []string{"POST /ok/a"}},
		"B25 two requests, one denied":      {get + "\r\n" + denied, []int{200, 403}, "policy_denied", []string{"GET /ok/a"}},
		"B25 behind Connection: close":      {get + "Connection: close\r\n\r\n" + denied, []int{200}, "", []string{"GET /ok/a"}},
		"B25 behind a length":               {post + "Content-Length: 1\r\n\r\na" + denied, []int{200, 403}, "policy_denied", []string{"POST /ok/a"}},
		"B25 inside a length":               {post + "Content-Length: 40\r\n\r\nGET /denied HTTP/1.1\r\nHost: api.demo\r\n\r\n", []int{200}, "", []string{"POST /ok/a"}},
		"B25 behind chunks":                 {chunked + "1\r\na\r\n0\r\n\r\n" + denied, []int{200, 403}, "policy_denied", []string{"POST /ok/a"}},
		"B25 behind a trailer":              {chunked + "0\r\nX: y\r\n\r\n" + denied, []int{200, 403}, "policy_denied", []string{"POST /ok/a"}},
		"B25 behind chunks with extensions": {chunked + "1;a=b\r\na\r\n0;c\r\n\r\n" + denied, []int{200, 403}, "policy_denied", []string{"POST /ok/a"}},
		"B25 denied, then allowed":          {denied + get + "\r\n", []int{403}, "policy_denied", nil},
		"B25 a GET with a body":             {get + "Content-Length: 3\r\n\r\nabc" + denied, []int{200, 403}, "policy_denied", []string{"GET /ok/a"}},
		"B25 three allowed":                 {get + "\r\n" + get + "\r\n" + get + "\r\n", []int{200, 200, 200}, "", []string{"GET /ok/a", "GET /ok/a", "GET /ok/a"}},
		"B22 the same CL twice":             {post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", []int{200}, "", []string{"POST /ok/a"}},
		"chunk: a size with leading zeros":  {chunked + "0001\r\na\r\n0\r\n\r\n", []int{200}, "", []string{"POST /ok/a"}},
		"a path that names another origin":  {"GET {abs}/ok/a@other.demo.test:7009/ HTTP/1.1\r\nHost: {host}\r\n\r\n", []int{200}, "", []string{"GET /ok/a@other.demo.test:7009/"}},
		"OPTIONS with an asterisk":          {"OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n", []int{400}, "invalid_request_target", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range http1Entries {
				a.smuggle(t, e, tc)
			}
		})
	}
	a.settled(t)
}

// smuggled is one raw text and what has to come of it.
type smuggled struct {
	text    string
	answers []int
	reason  string
	arrives []string // empty, not nil: the head may have gone on before the body was seen
}

func (a *siege) smuggle(t *testing.T, e entry, tc smuggled) {
	t.Helper()
	got := a.say(t, e, tc.text)
	var statuses []int
	last := answer{}
	for _, one := range got {
		statuses, last = append(statuses, one.status), one
	}
	if tc.answers != nil && !slices.Equal(statuses, tc.answers) {
		t.Errorf("%s: answers %v, want %v; the last: %s", e, statuses, tc.answers, last.body)
	}
	if last.reason != tc.reason {
		t.Errorf("%s: reason %q, want %q", e, last.reason, tc.reason)
	}
	if tc.arrives != nil && len(tc.arrives) == 0 {
		a.broken(t, tc.reason)
		return
	}
	a.oracle(t, tc.arrives, tc.reason)
}

// broken is the oracle for a body that turns out malformed when its head has gone on:
// the origin has nothing it could take for complete.
func (a *siege) broken(t *testing.T, reason string) {
	t.Helper()
	if found := a.denials(t, 1); len(found) != 1 || found[0].Unmapped.Reason != reason {
		t.Errorf("records %+v, want one with reason %q", found, reason)
	}
	for _, c := range []*keeper{a.plain, a.secure} {
		requests, raw, _ := c.seen()
		if strings.Contains(raw, "0\r\n\r\n") || len(requests) > 1 {
			t.Errorf("the origin may take %q for complete", raw)
		}
	}
}
