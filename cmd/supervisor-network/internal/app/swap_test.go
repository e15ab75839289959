package app

import "testing"

func TestSwapIsRecognised(t *testing.T) {
	const head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	const one = head + "/dev/sda2                               partition\t8388604\t0\t-2\n"
	for name, tc := range map[string]struct {
		swaps, limit string
		want         bool
	}{
		"no swap":                    {head, "max\n", false},
		"cannot be read":             {"", "", false},
		"swap":                       {one, "max\n", true},
		"swap, and a part of it":     {one, "1048576\n", true},
		"swap, and none for us":      {one, "0\n", false},
		"swap, and nothing is known": {one, "", true},
	} {
		if got := swappable(tc.swaps, tc.limit); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
