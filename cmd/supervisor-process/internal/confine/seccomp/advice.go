package seccomp

import (
	"strings"
	"sync"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// families are those that are asked for now and then.
var families = map[uint64]string{17: "packet", 31: "Bluetooth", 38: "AF_ALG", 40: "vsock", 44: "XDP"}

// Advise names a call that was told, in one of a bounded number of forms, and says what to
// do instead.
func Advise(number int, args [6]uint64) (call, instead string) {
	on, err := arch.GetInfo("")
	if err != nil {
		return "unknown", ""
	}
	call, ok := on.SyscallNumbers[number]
	if !ok {
		return "unknown", ""
	}
	instead = advices()[call]
	if family := families[args[0]]; call == "socket" && family != "" {
		call += " (" + family + ")"
	}
	return call, instead
}

// advices are what to do instead, by call.
var advices = sync.OnceValue(func() map[string]string {
	out := make(map[string]string)
	for _, table := range [][]advice{advised, advisedByArgument} {
		for _, a := range table {
			for name := range strings.FieldsSeq(a.names) {
				out[name] = a.instead
			}
		}
	}
	return out
})
