package landlock

import "testing"

// TestEveryABIBelowTheHardOneLacksSomething, and none from there on.
func TestEveryABIBelowTheHardOneLacksSomething(t *testing.T) {
	last := 5
	for abi, want := range []int{4, 3, 3, 2, 2, 1, 0, 0} {
		got := Unlimited(abi)
		if len(got) != want || len(got) > last || (len(got) == 0) != (abi >= HardABI) {
			t.Errorf("ABI %d: %q, want %d", abi, got, want)
		}
		last = len(got)
	}
}
