// Package world is the small world that end-to-end tests and the demo run in: a
// network and mount namespace of its own with addresses that are not loopback,
// names for them, and origins that speak HTTP, HTTPS and git.
//
// It answers the threat of a test that leaves the machine it runs on: nothing in
// this world has a route anywhere.
package world

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Address is where the origins listen.
const Address = "10.77.0.1"

// Address6 is the same for IPv6.
const Address6 = "fd00:77::1"

// Hosts are the names the world knows, with their addresses.
var Hosts = map[string][]string{
	"api.demo.test":      {Address},
	"git.demo.test":      {Address},
	"other.demo.test":    {Address},
	"six.demo.test":      {Address6},
	"a.wild.demo.test":   {Address},
	"loop.demo.test":     {"127.0.0.1"},
	"metadata.demo.test": {"169.254.169.254"},
	"mixed.demo.test":    {Address, "127.0.0.1"},
}

// inside marks the re-executed program and names its folder.
const inside = "SPLITPOD_TEST_WORLD"

// Enter runs the program again inside a new world, unless it already is there. It
// returns only inside; outside it exits with the inner program's code.
func Enter() error {
	if os.Getenv(inside) != "" {
		return prepare()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "splitpod-world-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	_ = os.RemoveAll(dir)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		return fmt.Errorf("enter a test world (needs root with all capabilities; in a container, a privileged one): %w", err)
	}
	os.Exit(0)
	return nil
}

// prepare gives the namespace its addresses and names. The addresses are on lo,
// because some kernels have no dummy interfaces; they are not loopback addresses.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, a := range []string{Address + "/24", Address6 + "/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, addr); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return writeHosts()
}

// writeHosts covers /etc/hosts and /etc/resolv.conf: names resolve from this
// world's file, and a name that is not there fails at once.
func writeHosts() error {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for name, addrs := range Hosts {
		for _, a := range addrs {
			fmt.Fprintf(&b, "%s %s\n", a, name)
		}
	}
	dir := os.Getenv(inside)
	for path, text := range map[string]string{"/etc/hosts": b.String(), "/etc/resolv.conf": "nameserver " + Address + "\noptions timeout:1 attempts:1\n"} {
		file := dir + "/" + strings.ReplaceAll(path, "/", "_")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", path, err)
		}
	}
	return nil
}
