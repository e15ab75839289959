package seccomp

import (
	"strings"
	"sync"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// families are those that are asked for now and then.
var families = map[uint64]string{17: "packet", 31: "Bluetooth", 38: "AF_ALG", 40: "vsock", 44: "XDP"}

// Advise names a call that was told and what it is for, in one of a bounded number of
// forms, and says what to do instead.
func Advise(number int, args [6]uint64) (call, instead string) {
	on, err := arch.GetInfo("")
	if err != nil {
		return "unknown", ""
	}
	call = on.SyscallNumbers[number]
	a, ok := advices()[call]
	if !ok {
		return "unknown", ""
	}
	what := a.why
	if family := families[args[0]]; call == "socket" && family != "" {
		what = family
	}
	return call + " (" + what + ")", a.instead
}

// advices are the tables by call.
var advices = sync.OnceValue(func() map[string]advice {
	out := make(map[string]advice)
	for _, table := range [][]advice{advised, advisedByArgument} {
		for _, a := range table {
			for name := range strings.FieldsSeq(a.names) {
				out[name] = a
			}
		}
	}
	return out
})
