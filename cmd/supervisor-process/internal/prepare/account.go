package prepare

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Account is as whom the workload runs. The zero value is nobody and refused.
type Account struct {
	Name     string // from passwd, or one that nobody has there
	Unlisted bool   // passwd has no row for UID
	UID      uint32
	GID      uint32
	Groups   []uint32 // supplementary groups, exactly; sorted, without GID
	Home     string   // absolute
	Shell    string   // absolute; empty when the image has none
}

// DefaultUser is the user when the policy names none.
const DefaultUser = "sandbox"

// Limits of the image's account files, which the image's author wrote.
const (
	maxAccountFile = 1 << 20
	maxAccountLine = 8 << 10
	maxGroups      = 64
)

// LookupAccount finds the policy's user and group in the account files below root.
// Both may be names, decimal numbers or empty: an empty user is DefaultUser, an
// empty group the user's own. uid and gid 0 and 4294967295 are refused, and so are
// the ids in taken, which belong to the other daemon.
func LookupAccount(root, user, group string, taken uint32) (Account, error) {
	if user == "" {
		user = DefaultUser
	}
	users, err := readAccounts(filepath.Join(root, "etc/passwd"), 7)
	if err != nil {
		return Account{}, err
	}
	groups, err := readAccounts(filepath.Join(root, "etc/group"), 4)
	if err != nil {
		return Account{}, err
	}
	a, err := findUser(users, user)
	if err != nil {
		return Account{}, err
	}
	if group != "" {
		if a.GID, err = findGroup(groups, group); err != nil {
			return Account{}, err
		}
	}
	if err := a.check(taken); err != nil {
		return Account{}, err
	}
	if !a.Unlisted { // the image cannot have meant somebody whose name is ours
		a.Groups, err = memberships(groups, a)
	}
	if err != nil {
		return Account{}, err
	}
	a.fillIn(root)
	return a, nil
}

func (a Account) check(taken uint32) error {
	switch {
	case a.UID == 0 || a.UID == ^uint32(0):
		return fmt.Errorf("run_as_user %s is uid %d; the workload runs as an ordinary user, 1 to 4294967294", a.Name, a.UID)
	case a.GID == 0:
		return fmt.Errorf("run_as_group of user %s is gid 0 or not known; name a group, 1 to 4294967294", a.Name)
	case a.GID == ^uint32(0):
		return errors.New("run_as_group is 4294967295, which is no group")
	case a.UID == taken:
		return fmt.Errorf("run_as_user %s is uid %d, which the network daemon runs as; choose another", a.Name, a.UID)
	}
	return nil
}

// findUser looks a name or number up. A number needs no entry.
func findUser(users [][]string, user string) (Account, error) {
	number, isNumber, err := parseID(user)
	if err != nil {
		return Account{}, fmt.Errorf("run_as_user: %w", err)
	}
	var found []Account
	for _, f := range users {
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		if f[0] == user && !isNumber || isNumber && uint32(uid) == number {
			found = append(found, Account{Name: f[0], UID: uint32(uid), GID: uint32(gid), Home: f[5], Shell: f[6]})
		}
	}
	switch {
	case len(found) > 1 && found[0].UID != 0: // root is refused as root
		return Account{}, fmt.Errorf("run_as_user: the image has %d entries for %q in /etc/passwd; which one is meant?", len(found), user)
	case len(found) > 0:
		return found[0], nil
	case user == DefaultUser:
		return Account{}, fmt.Errorf("process.run_as_user: the image has no user %q, who is meant where the policy says nothing; write a number, or add the user to the image", user)
	case !isNumber:
		return Account{}, fmt.Errorf("process.run_as_user: the image has no user %q in /etc/passwd; use a number, or add the user to the image", user)
	}
	return Account{Name: freeName(users, number), Unlisted: true, UID: number}, nil
}

// freeName is a name for an id that has none: DefaultUser, unless somebody else is called
// that.
func freeName(rows [][]string, id uint32) string {
	taken := func(name string) bool {
		return slices.ContainsFunc(rows, func(f []string) bool { return f[0] == name })
	}
	number := strconv.FormatUint(uint64(id), 10)
	for _, name := range []string{DefaultUser, DefaultUser + number} {
		if !taken(name) {
			return name
		}
	}
	return number
}

func findGroup(groups [][]string, group string) (uint32, error) {
	number, isNumber, err := parseID(group)
	if err != nil {
		return 0, fmt.Errorf("run_as_group: %w", err)
	}
	if isNumber {
		return number, nil
	}
	var found []uint32
	for _, f := range groups {
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil && f[0] == group {
			found = append(found, uint32(gid))
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
	default:
		return 0, fmt.Errorf("run_as_group: the image has %d entries for %q in /etc/group; which one is meant?", len(found), group)
	}
	return 0, fmt.Errorf("run_as_group: the image has no group %q in /etc/group; use a number, or add the group to the image", group)
}

// parseID reads a decimal id. What starts with a digit is a number or an error,
// never a name.
func parseID(s string) (id uint32, isNumber bool, err error) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, false, fmt.Errorf("%q is not an id from 1 to 4294967294", s)
	}
	return uint32(n), true, nil
}

// memberships lists the groups that name the user, without gid 0: an image must
// not hand root's group out.
func memberships(groups [][]string, a Account) ([]uint32, error) {
	var out []uint32
	for _, f := range groups {
		gid, err := strconv.ParseUint(f[2], 10, 32)
		id := uint32(gid)
		if err != nil || id == 0 || id == a.GID || id == ^uint32(0) || !slices.Contains(strings.Split(f[3], ","), a.Name) {
			continue
		}
		out = append(out, id)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) > maxGroups {
		return nil, fmt.Errorf("user %s is in %d groups of the image; %d are allowed", a.Name, len(out), maxGroups)
	}
	return out, nil
}

// fillIn gives home and shell values that are there.
func (a *Account) fillIn(root string) {
	if !filepath.IsAbs(a.Home) {
		a.Home = "/"
		if isDir(filepath.Join(root, "sandbox")) {
			a.Home = "/sandbox"
		}
	}
	for _, shell := range []string{a.Shell, "/bin/bash", "/bin/sh"} {
		if filepath.IsAbs(shell) && !refuses(shell) && isProgram(filepath.Join(root, shell)) {
			a.Shell = shell
			return
		}
	}
	a.Shell = ""
}

// refuses reports whether a shell is one of those that accounts have whom nobody logs in
// as. Who may log in here is not the image's to say, and programs run commands by SHELL.
func refuses(shell string) bool {
	name := filepath.Base(shell)
	return name == "nologin" || name == "false"
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func isProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// readAccounts reads the lines of a colon-separated file that have the right number
// of fields. A file that is not there is empty.
func readAccounts(path string, fields int) ([][]string, error) {
	data, _, err := readAccountFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the image's accounts: %w", err)
	}
	return accountRows(path, data, fields)
}

// readAccountFile reads a file of the image's author, and its mode.
func readAccountFile(path string) ([]byte, os.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAccountFile+1))
	if err == nil && len(data) > maxAccountFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxAccountFile)
	}
	return data, st.Mode(), err
}

func accountRows(path string, data []byte, fields int) ([][]string, error) {
	var out [][]string
	for line := range strings.Lines(string(data)) {
		if len(line) > maxAccountLine {
			return nil, fmt.Errorf("read the image's accounts: %s has a line of more than %d bytes", path, maxAccountLine)
		}
		if f := strings.Split(strings.TrimRight(line, "\r\n"), ":"); len(f) == fields {
			out = append(out, f)
		}
	}
	return out, nil
}
