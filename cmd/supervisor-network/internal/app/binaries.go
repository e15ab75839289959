package app

import (
	"maps"
	"slices"
	"strings"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// exactBinaries lists the paths that may be symbolic links, sorted and once each:
// every binary of the policy without a wildcard.
func exactBinaries(doc *policy.Document) []string {
	set := make(map[string]bool)
	for _, rule := range doc.Network {
		for _, b := range rule.Binaries {
			if !strings.Contains(b.Path, "*") {
				set[b.Path] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func sameBinaries(a, b *policy.Document) bool {
	return a != nil && b != nil && slices.Equal(exactBinaries(a), exactBinaries(b))
}
