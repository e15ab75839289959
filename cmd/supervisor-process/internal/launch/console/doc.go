// Package console keeps the main program's input and output for its whole life, so
// that people can look at it and type into it while it runs, and come and go.
//
// It answers the threats of a viewer that stalls the workload (output is kept, a
// viewer that falls behind is told and let go), of two people typing into one
// program (one lease), of a viewer who was given eyes and uses hands (a read-only
// viewer has no way to the input, the size or the signals), and of memory that a
// talkative workload fills (one bound, whatever it writes and in what pieces).
//
// Invariant: what the program writes goes to the container's own output first, in
// order and complete; only then viewers see it.
package console

// Limits.
const (
	maxKept   = 1 << 20 // bytes of output that a new viewer is shown
	maxPieces = 4096    // pieces they may consist of
	maxPiece  = 4096    // bytes of one
)
