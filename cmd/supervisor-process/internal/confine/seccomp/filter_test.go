package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files")

// filter interprets the program instead of loading it.
type filter struct {
	t  *testing.T
	vm *bpf.VM
	on *arch.Info
}

// machines are those we build for, by Go's name.
var machines = map[string]*arch.Info{"amd64": arch.X86_64, "arm64": arch.AARCH64}

func newFilter(t *testing.T, on *arch.Info) filter {
	t.Helper()
	return interpret(t, on, with(silent))
}

// with assembles a filter of the workload with these answers.
func with(a answers) func(*arch.Info) ([]bpf.Instruction, error) {
	return func(on *arch.Info) ([]bpf.Instruction, error) { return program(on, a) }
}

func interpret(t *testing.T, on *arch.Info, assemble func(*arch.Info) ([]bpf.Instruction, error)) filter {
	t.Helper()
	instructions, err := assemble(on)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return filter{t: t, vm: vm, on: on}
}

// onEveryMachine runs a test for each of them.
func onEveryMachine(t *testing.T, test func(t *testing.T, f filter)) {
	for name, on := range machines {
		t.Run(name, func(t *testing.T) { test(t, newFilter(t, on)) })
	}
}

// raw runs the filter over a struct seccomp_data. The interpreter loads big-endian
// words where the kernel loads native ones.
func (f filter) raw(nr, machine uint32, args ...uint64) uint32 {
	f.t.Helper()
	data := make([]byte, 64)
	word := func(at int, v uint32) { binary.BigEndian.PutUint32(data[at:], v) }
	word(0, nr)
	word(4, machine)
	for i, a := range args {
		word(16+8*i, uint32(a)) // low half first, as on the little-endian machines there are
		word(20+8*i, uint32(a>>32))
	}
	n, err := f.vm.Run(data)
	if err != nil {
		f.t.Fatal(err)
	}
	return uint32(n)
}

func (f filter) call(name string, args ...uint64) string {
	f.t.Helper()
	nr, ok := f.on.SyscallNames[name]
	if !ok {
		return "no such call"
	}
	return answer(f.raw(uint32(nr), uint32(f.on.ID), args...))
}

func answer(v uint32) string {
	switch v {
	case uint32(allow):
		return "allow"
	case uint32(eperm):
		return "EPERM"
	case uint32(nosys):
		return "ENOSYS"
	default:
		return "?"
	}
}

func TestCallsWithArguments(t *testing.T) { onEveryMachine(t, callsWithArguments) }

func callsWithArguments(t *testing.T, f filter) {
	const high = 1 << 32
	for _, tt := range []struct {
		why  string
		call string
		args []uint64
		want string
	}{
		{"reading", "read", nil, "allow"},
		{"executing", "execve", nil, "allow"},
		{"a Unix socket", "socket", []uint64{1, 1, 0}, "allow"},
		{"an IPv4 socket", "socket", []uint64{2, 1, 0}, "allow"},
		{"an IPv6 socket", "socket", []uint64{10, 2, 0}, "allow"},
		{"TCP by its number", "socket", []uint64{2, 1, 6}, "allow"},
		{"UDP over IPv6 by its number", "socket", []uint64{10, 2, 17}, "allow"},
		{"ping", "socket", []uint64{2, 2, 1}, "allow"},
		{"ping over IPv6", "socket", []uint64{10, 2, 58}, "allow"},
		{"ping over IPv6 in IPv4", "socket", []uint64{2, 2, 58}, "EPERM"},
		{"the protocol behind UDP", "socket", []uint64{2, 1, 18}, "EPERM"},
		{"DCCP", "socket", []uint64{2, 6, 33}, "EPERM"},
		{"L2TP", "socket", []uint64{10, 2, 115}, "EPERM"},
		{"SCTP", "socket", []uint64{2, 1, 132}, "EPERM"},
		{"UDP-Lite", "socket", []uint64{10, 2, 136}, "EPERM"},
		{"SMC", "socket", []uint64{2, 1, 256}, "EPERM"},
		{"MPTCP", "socket", []uint64{10, 1, 262}, "EPERM"},
		{"TCP, not blocking and closed on exec", "socket", []uint64{2, 1 | 0x80800, 0}, "allow"},
		{"SCTP by its type", "socket", []uint64{2, 5, 0}, "EPERM"},
		{"DCCP by its type", "socket", []uint64{10, 6 | 0x80000, 0}, "EPERM"},
		{"SCTP, hidden above 32 bits", "socket", []uint64{2, 1, 132 | high}, "EPERM"},
		{"a routing socket", "socket", []uint64{16, 3, 0}, "allow"},
		{"a netfilter socket", "socket", []uint64{16, 3, 12}, "EPERM"},
		{"a sock_diag socket", "socket", []uint64{16, 3, 4}, "EPERM"},
		{"a generic netlink socket, whose protocol is the number of ioctl", "socket", []uint64{16, 3, 16}, "EPERM"},
		{"a family that is the number of prctl", "socket", []uint64{157, 1, 0}, "EPERM"},
		{"a packet socket", "socket", []uint64{17, 3, 0}, "EPERM"},
		{"a vsock to the host", "socket", []uint64{40, 1, 0}, "EPERM"},
		{"AF_ALG", "socket", []uint64{38, 5, 0}, "EPERM"},
		{"Bluetooth", "socket", []uint64{31, 1, 0}, "EPERM"},
		{"a family with something above 32 bits", "socket", []uint64{2 | high, 1, 0}, "EPERM"},
		{"a family that only differs above 32 bits", "socket", []uint64{40 | high, 1, 0}, "EPERM"},
		{"a pair of Unix sockets", "socketpair", []uint64{1, 1, 0}, "allow"},
		{"a pair of TIPC sockets", "socketpair", []uint64{30, 1, 0}, "EPERM"},
		{"a thread", "clone", []uint64{0x3d0f00}, "allow"},
		{"a process", "clone", []uint64{0x01200011}, "allow"},
		{"a user namespace", "clone", []uint64{0x10000011}, "EPERM"},
		{"a mount namespace", "clone", []uint64{0x00020011}, "EPERM"},
		{"a user namespace by unshare", "unshare", []uint64{0x10000000}, "EPERM"},
		{"a time namespace by unshare", "unshare", []uint64{0x80}, "EPERM"},
		{"a file table of one's own", "unshare", []uint64{0x400}, "allow"},
		{"clone3", "clone3", nil, "ENOSYS"},
		{"executing a file without a path", "execveat", []uint64{3, 0, 0, 0, 0x1000}, "EPERM"},
		{"executing relative to a directory", "execveat", []uint64{3, 0, 0, 0, 0}, "allow"},
		{"the size of a terminal", "ioctl", []uint64{0, 0x5413}, "allow"},
		{"typing into a terminal", "ioctl", []uint64{0, 0x5412}, "EPERM"},
		{"typing, hidden above 32 bits", "ioctl", []uint64{0, 0x5412 | high}, "EPERM"},
		{"typing, hidden by a sign", "ioctl", []uint64{0, 0xffffffff00005412}, "EPERM"},
		{"a request as a negative int", "ioctl", []uint64{0, 0xffffffff80045430}, "allow"},
		{"pasting into a console", "ioctl", []uint64{0, 0x541c}, "EPERM"},
		{"an option of a socket", "setsockopt", []uint64{3, 1, 31}, "allow"},
		{"an option of TCP", "setsockopt", []uint64{3, 6, 1}, "allow"},
		{"another protocol above TCP", "setsockopt", []uint64{3, 6, 31}, "EPERM"},
		{"another protocol, its level hidden above 32 bits", "setsockopt", []uint64{3, 6 | high, 31}, "EPERM"},
		{"another protocol, hidden above 32 bits", "setsockopt", []uint64{3, 6, 31 | high}, "EPERM"},
		{"another line discipline", "ioctl", []uint64{0, 0x5423}, "EPERM"},
		{"which line discipline there is", "ioctl", []uint64{0, 0x5424}, "allow"},
		{"limits of one's own", "prlimit64", []uint64{0, 7, 1}, "allow"},
		{"another's limits", "prlimit64", []uint64{5, 0, 1}, "EPERM"},
		{"another's limits, only asked for", "prlimit64", []uint64{5, 0, 0, 1}, "allow"},
		{"another's limits, hidden above 32 bits", "prlimit64", []uint64{5 | high, 0, high}, "EPERM"},
		{"the personality", "personality", []uint64{0xffffffff}, "allow"},
		{"memory at fixed addresses", "personality", []uint64{0x0040000}, "EPERM"},
		{"a name for a thread", "prctl", []uint64{15}, "allow"},
		{"another filter by prctl", "prctl", []uint64{22, 2}, "EPERM"},
		{"another filter by prctl, hidden", "prctl", []uint64{22 | high, 2}, "EPERM"},
		{"another filter", "seccomp", []uint64{1}, "EPERM"},
		{"another filter, hidden", "seccomp", []uint64{1 | high}, "EPERM"},
		{"what actions there are", "seccomp", []uint64{2}, "allow"},
		{"io_uring", "io_uring_setup", nil, "EPERM"},
		{"BPF", "bpf", nil, "EPERM"},
		{"tracing", "ptrace", nil, "EPERM"},
		{"somebody's descriptor", "pidfd_getfd", nil, "EPERM"},
		{"a mount", "mount", nil, "EPERM"},
		{"a mount's attributes", "mount_setattr", nil, "EPERM"},
		{"a file by its handle", "open_by_handle_at", nil, "EPERM"},
		{"a key", "keyctl", nil, "EPERM"},
	} {
		if got := f.call(tt.call, tt.args...); got != tt.want {
			t.Errorf("%s: %s %#x answers %s, want %s", tt.why, tt.call, tt.args, got, tt.want)
		}
	}
}

// TestWhatIsToldIsRefused: a pair of filters lets the very same calls pass as the filter
// that tells nobody, and where one gives notice nothing stronger stands before it, nor a
// tracer's word behind it.
func TestWhatIsToldIsRefused(t *testing.T) {
	for name, on := range machines {
		t.Run(name, func(t *testing.T) {
			alone, own, outer := newFilter(t, on), interpret(t, on, with(told)), interpret(t, on, with(notice))
			tell := func(call string, nr, machine uint32, args ...uint64) bool {
				is, w, n := alone.raw(nr, machine, args...), own.raw(nr, machine, args...), outer.raw(nr, machine, args...)
				if tells := n == uint32(notice.told); tells != (w == uint32(told.told)) || tells && is != uint32(eperm) || !tells && (w != is || n != uint32(allow)) {
					t.Fatalf("%s (%d, machine %#x) %#x: alone %#x, told %#x, notice %#x", call, nr, machine, args, is, w, n)
				}
				return n != uint32(allow)
			}
			seen := make(map[string]bool)
			for args := range likely(100_000) {
				nr := int(args[5])
				if call := on.SyscallNumbers[nr]; tell(call, uint32(nr), uint32(on.ID), args[:]...) {
					seen[call] = true
				}
				tell("elsewhere", uint32(nr), unix.AUDIT_ARCH_I386, args[:]...)
				if on == arch.X86_64 {
					tell("x32", uint32(nr)|x32, uint32(on.ID), args[:]...)
				}
			}
			arguments := map[string][]uint64{"socket": {40, 1, 0}, "clone": {0x10000011}, "unshare": {0x10000000}, "execveat": {3, 0, 0, 0, 0x1000}, "ioctl": {0, 0x5412}}
			for _, call := range names(groups(slices.Concat(advised, advisedByArgument)), on) {
				if !tell(call, uint32(on.SyscallNames[call]), uint32(on.ID), arguments[call]...) {
					t.Errorf("nobody is told of %s", call)
				}
				delete(seen, call)
			}
			for call := range seen {
				t.Errorf("%s is told without advice", call)
			}
		})
	}
}

// TestOrdinaryProgramsAreNotHeldUp: what libraries try in passing, and what init does later
// on, does not wait for anybody.
func TestOrdinaryProgramsAreNotHeldUp(t *testing.T) {
	for name, on := range machines {
		outer := interpret(t, on, with(notice))
		for _, tt := range []struct {
			call string
			args []uint64
		}{
			{"clone3", nil}, {"pidfd_open", nil}, {"pidfd_send_signal", nil}, {"io_uring_setup", nil}, {"memfd_create", nil}, {"get_mempolicy", nil}, {"name_to_handle_at", nil},
			{"statmount", nil}, {"socket", []uint64{2, 1, 262}}, {"socket", []uint64{10, 1, 262}}, {"socket", []uint64{16, 3, 9}}, {"socket", []uint64{16, 3, 12}},
			{"prctl", []uint64{22, 2}}, {"seccomp", []uint64{1}}, {"setsockopt", []uint64{3, 6, 31}}, {"prlimit64", []uint64{1, 7, 1}}, {"ioctl", []uint64{0, 0x540e}}, {"clone", []uint64{0x4111}}, {"execve", nil}, {"personality", []uint64{0x40000}},
		} {
			if got := outer.call(tt.call, tt.args...); got != "allow" {
				t.Errorf("%s on %s %#x: the filter that gives notice answers %s", tt.call, name, tt.args, got)
			}
		}
	}
}

// likely yields arguments that are likely to be special.
func likely(tries int) func(func([6]uint64) bool) {
	special := []uint64{0, 1, 2, 6, 8, 10, 31, 16, 17, 22, 40, 0x80, 0x1000, 0x5412, 0x541c, 0x5423, 0x10000000, 1 << 32, 0xffffffff, 0xffffffff80000000, 0xffffffffffffffff}
	if testing.Short() {
		tries /= 10
	}
	return func(yield func([6]uint64) bool) {
		r := rand.New(rand.NewPCG(3, 4))
		for range tries {
			var args [6]uint64
			for i := range args {
				args[i] = special[r.IntN(len(special))]
				if r.IntN(4) == 0 {
					args[i] |= uint64(r.IntN(470))
				}
			}
			args[5] = uint64(r.IntN(470)) // no rule looks at it
			if !yield(args) {
				return
			}
		}
	}
}

// TestDaemonGivesUpWhatItNeedsNoMore, in a process of its own.
func TestDaemonGivesUpWhatItNeedsNoMore(t *testing.T) {
	if os.Getenv("SPLITPOD_TEST_DAEMON_FILTER") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDaemonGivesUpWhatItNeedsNoMore$", "-test.v")
		cmd.Env = append(os.Environ(), "SPLITPOD_TEST_DAEMON_FILTER=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := ApplyToDaemon(); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	for range 8 { // other threads too
		go func() {
			runtime.LockOSThread()
			if err := unix.Exec("/bin/true", []string{"true"}, nil); !errors.Is(err, unix.EPERM) {
				t.Errorf("execve: %v", err)
			}
			if err := unix.Mount("x", "/x", "tmpfs", 0, ""); !errors.Is(err, unix.EPERM) {
				t.Errorf("mount: %v", err)
			}
			done <- true
		}()
	}
	for range 8 {
		<-done
	}
	if err := exec.Command("/bin/true").Run(); err == nil {
		t.Error("a program was started")
	}
	if _, err := os.ReadFile("/proc/self/status"); err != nil {
		t.Error(err)
	}
}

// slow reads the tables.
func slow(name string, args [6]uint64) string {
	in := func(groups []group) bool {
		for _, g := range groups {
			if slices.Contains(strings.Fields(g.names), name) {
				return true
			}
		}
		return false
	}
	for _, r := range conditional {
		holds := r.call == name
		for _, c := range r.conditions {
			v := args[c.arg]
			holds = holds && map[string]bool{
				"==": v == c.value, "!=": v != c.value, "<=": v <= c.value, ">=": v >= c.value, "no bit of": v&c.value == 0,
			}[c.op]
		}
		if holds {
			return "allow"
		}
	}
	switch {
	case in(allowed):
		return "allow"
	case in(missing):
		return "ENOSYS"
	default:
		return "EPERM"
	}
}

// FuzzFilter compares the program with a reading of the tables.
func FuzzFilter(f *testing.F) {
	f.Add(uint16(41), uint64(16), uint64(3), uint64(16), uint64(0), uint64(0))
	f.Add(uint16(16), uint64(0), uint64(1<<32|0x5412), uint64(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, nr uint16, a, b, c, d, e uint64) {
		for _, on := range machines {
			m := newFilter(t, on)
			name, ok := m.on.SyscallNumbers[int(nr)]
			got := answer(m.raw(uint32(nr), uint32(m.on.ID), a, b, c, d, e))
			want := "ENOSYS"
			if ok {
				want = slow(name, [6]uint64{a, b, c, d, e})
			}
			if got != want {
				t.Errorf("%s (%d) %#x answers %s, the tables say %s", name, nr, []uint64{a, b, c, d, e}, got, want)
			}
		}
	})
}

// TestFilterAgreesWithTheTables on arguments that are likely to be special.
func TestFilterAgreesWithTheTables(t *testing.T) { onEveryMachine(t, agreesWithTheTables) }

func agreesWithTheTables(t *testing.T, f filter) {
	for args := range likely(100_000) {
		nr := int(args[5])
		name, ok := f.on.SyscallNumbers[nr]
		if !ok {
			continue
		}
		if got, want := answer(f.raw(uint32(nr), uint32(f.on.ID), args[:]...)), slow(name, args); got != want {
			t.Fatalf("%s %#x answers %s, the tables say %s", name, args, got, want)
		}
	}
}

// TestOtherABIsHaveNoCalls: the same number means another call there.
func TestOtherABIsHaveNoCalls(t *testing.T) {
	onEveryMachine(t, otherABIsHaveNoCalls)
	for name, on := range machines {
		t.Run("the daemon on "+name, func(t *testing.T) {
			f := interpret(t, on, daemonProgram)
			for nr := range uint32(600) {
				if got := answer(f.raw(nr, unix.AUDIT_ARCH_I386)); got != "ENOSYS" {
					t.Fatalf("i386 call %d answers %s", nr, got)
				}
				if got := answer(f.raw(nr|x32, uint32(on.ID))); on == arch.X86_64 && got != "ENOSYS" {
					t.Fatalf("x32 call %d answers %s", nr, got)
				}
			}
			for _, refused := range []string{"execve", "mount", "ptrace", "setuid"} {
				if got := f.call(refused); got != "EPERM" {
					t.Errorf("%s answers %s", refused, got)
				}
			}
			if got := f.call("read"); got != "allow" {
				t.Errorf("read answers %s", got)
			}
		})
	}
}

func otherABIsHaveNoCalls(t *testing.T, f filter) {
	for nr := range uint32(600) {
		for name, other := range map[string]uint32{"i386": unix.AUDIT_ARCH_I386, "arm": unix.AUDIT_ARCH_ARM, "none": 0} {
			if got := answer(f.raw(nr, other, 2, 1, 0)); got != "ENOSYS" {
				t.Fatalf("%s call %d answers %s", name, nr, got)
			}
		}
		if f.on == arch.X86_64 {
			if got := answer(f.raw(nr|x32, uint32(f.on.ID), 2, 1, 0)); got != "ENOSYS" {
				t.Fatalf("x32 call %d answers %s", nr, got)
			}
		}
	}
	for nr := uint32(600); nr < 5000; nr++ {
		if got := answer(f.raw(nr, uint32(f.on.ID))); got != "ENOSYS" {
			t.Fatalf("call %d of the future answers %s", nr, got)
		}
	}
}

// TestTablesCoverEveryCallOnce, on every machine we build for.
func TestTablesCoverEveryCallOnce(t *testing.T) {
	where := make(map[string]string)
	for _, g := range daemonRefused {
		for name := range strings.FieldsSeq(g.names) {
			if _, ok := arch.X86_64.SyscallNames[name]; !ok {
				t.Errorf("%s, which the daemon gives up, exists nowhere", name)
			}
		}
	}
	for table, groups := range map[string][]group{"allowed": allowed, "missing": missing, "refused": refused, "advised": groups(advised)} {
		for _, g := range groups {
			for name := range strings.FieldsSeq(g.names) {
				if where[name] != "" {
					t.Errorf("%s is in %s and %s", name, where[name], table)
				}
				where[name] = table
			}
			if g.why == "" {
				t.Errorf("a group of %s has no reason", table)
			}
		}
	}
	for _, r := range conditional {
		if w := where[r.call]; w != "" && w != "conditional" || r.why == "" {
			t.Errorf("%s is in %s too, or has no reason", r.call, w)
		}
		where[r.call] = "conditional"
	}
	for _, a := range slices.Concat(advised, advisedByArgument) {
		if a.why == "" || a.instead == "" {
			t.Errorf("%s: there is no reason or no advice", a.names)
		}
	}
	for _, a := range advisedByArgument {
		for name := range strings.FieldsSeq(a.names) {
			if where[name] != "conditional" {
				t.Errorf("%s is in %s", name, where[name])
			}
		}
	}
	known := make(map[string]bool)
	for _, on := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		for name := range on.SyscallNames {
			known[name] = true
			if where[name] == "" {
				t.Errorf("%s of %s is in no table", name, on.Name)
			}
		}
	}
	for name := range where {
		if !known[name] {
			t.Errorf("%s exists nowhere", name)
		}
	}
}

// TestProfileIsTheGoldenOne on every machine we build for: what a reviewer reads.
func TestProfileIsTheGoldenOne(t *testing.T) {
	for name, on := range machines {
		t.Run(name, func(t *testing.T) {
			profileIsTheGoldenOne(t, newFilter(t, on), filepath.Join("testdata", "profile_"+name+".json"))
		})
	}
}

func profileIsTheGoldenOne(t *testing.T, f filter, golden string) {
	profile := make(map[string]string)
	for name := range f.on.SyscallNames {
		profile[name] = f.call(name)
	}
	for _, r := range conditional {
		if profile[r.call] != "" {
			profile[r.call] = "by argument"
		}
	}
	got, err := json.MarshalIndent(profile, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
		t.Errorf("the profile differs (-want +got); write it with -update if that is meant:\n%s", diff)
	}
}
