package credentials

import (
	"strings"
	"testing"
)

// TestAPastedSecretIsNotRepeated: who writes the secret where its path belongs reads
// where that is, and nobody reads what was written there.
func TestAPastedSecretIsNotRepeated(t *testing.T) {
	const secret = "ghp_PASTED0123456789"
	for name, text := range map[string]string{
		"as the key's object":   "version: 1\ncredentials:\n  TOKEN: " + secret + "\n",
		"as its file":           "version: 1\ncredentials:\n  TOKEN: {file: " + secret + ", anywhere: true}\n",
		"as a file in quotes":   "version: 1\ncredentials:\n  TOKEN: {file: \"" + secret + "\\n\", anywhere: true}\n",
		"as a list of files":    "version: 1\ncredentials:\n  TOKEN: {file: [" + secret + "]}\n",
		"as a value":            "version: 1\ncredentials:\n  TOKEN: {file: /s/token, value: " + secret + ", anywhere: true}\n",
		"as the file's whole":   secret,
		"as a list":             "- " + secret + "\n",
		"in what is no YAML":    "version: 1\ncredentials: {TOKEN: {file: \"" + secret + "}\n",
		"behind an anchor":      "version: 1\ncredentials:\n  TOKEN: {file: &x " + secret + "}\n",
		"as the life":           "version: 1\ncredentials:\n  TOKEN: {file: /s/t, anywhere: true, expires_after: " + secret + "}\n",
		"as the expiry":         "version: 1\ncredentials:\n  TOKEN: {file: /s/t, anywhere: true, expires: " + secret + "}\n",
		"as a grant's subject":  "version: 1\ntoken_grants: [{name: g, token_endpoint: 'https://a.test', subject_key: " + secret + ", bindings: [{host: g.test, port: 443}]}]\n",
		"as a line of two":      secret + "\n" + secret + "\n",
		"as a value of the top": "version: 1\ntoken: " + secret + "\n",
		"as an endpoint's user": "version: 1\ntoken_grants: [{name: g, token_endpoint: 'https://u:" + secret + "@a.test', workload_api: 'unix:///s', bindings: [{host: g.test, port: 443}]}]\n",
	} {
		got := problemLines(t, text)
		if !strings.Contains(got, ":") {
			t.Errorf("%s: no problem is named", name)
		}
		if strings.Contains(strings.ToLower(got), "pasted") {
			t.Errorf("%s: %s", name, got)
		}
	}
}
