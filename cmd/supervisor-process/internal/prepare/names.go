package prepare

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// AccountFiles are /etc/passwd and /etc/group with a row for the account each: those that
// have none, and are there below root. A number is enough for the kernel, but not for
// programs that ask who they are (ssh, git, whoami, Java and Node.js among them). What
// not everybody could read already, or another file that a link leads to, stays as it is.
func AccountFiles(root string, a Account) map[string][]byte {
	out := make(map[string][]byte)
	if a.Unlisted {
		row := fmt.Sprintf("%s:x:%d:%d::%s:%s", a.Name, a.UID, a.GID, a.Home, a.Shell)
		if data := withRow(root, "/etc/passwd", 7, func([][]string) string { return row }); data != nil {
			out["/etc/passwd"] = data
		}
	}
	gid := strconv.FormatUint(uint64(a.GID), 10)
	data := withRow(root, "/etc/group", 4, func(rows [][]string) string {
		if slices.ContainsFunc(rows, func(f []string) bool { return f[2] == gid }) {
			return ""
		}
		return freeName(rows, a.GID) + ":x:" + gid + ":"
	})
	if data != nil {
		out["/etc/group"] = data
	}
	return out
}

// withRow is a public file below root with the row that it lacks; nil if it lacks none, or
// cannot have it.
func withRow(root, path string, fields int, row func([][]string) string) []byte {
	at := filepath.Join(root, path)
	if st, err := os.Lstat(at); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	data, mode, err := readAccountFile(at)
	if err != nil || mode&0o004 == 0 {
		return nil
	}
	rows, err := accountRows(path, data, fields)
	if err != nil {
		return nil
	}
	text := row(rows)
	if text == "" || strings.Count(text, ":") != fields-1 || strings.ContainsAny(text, "\n\r") {
		return nil // a home with a colon in it cannot be written down
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return append(data, text+"\n"...)
}
