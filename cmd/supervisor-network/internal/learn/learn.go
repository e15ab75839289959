// Package learn finds out what a workload needs: for a bounded time, public
// destinations that no rule allows are allowed and recorded, and of the record a policy
// is written that covers it and little more.
//
// It answers the threat of a learning time that nobody ends: it has a longest duration,
// a restart of the daemon does not begin it anew, and package decide looks at the clock
// with every question. It does not answer a workload that behaves well until the time
// is over, nor one that sends out what it has while it runs: learning is for workloads
// that are trusted for that long, and what it writes is to be read before it is used.
package learn

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
)

// Longest is how long learning may go on.
const Longest = 7 * 24 * time.Hour

// deadlineFile keeps the end of the learning time across restarts.
const deadlineFile = "learn-until.json"

type deadline struct {
	Asked time.Duration `json:"asked"`
	Until time.Time     `json:"until"`
}

// Until is the end of the learning time that was asked for; zero if none was. A daemon
// that is restarted with the same duration gets the same end, even if it has passed: to
// learn again, change the duration or remove the file. The end is never further away
// than the duration, even if the clock was set back meanwhile. It carries a monotonic
// reading of now.
func Until(dir string, asked time.Duration, now time.Time) (time.Time, error) {
	switch {
	case asked == 0:
		return time.Time{}, nil
	case asked < 0 || asked > Longest:
		return time.Time{}, fmt.Errorf("a learning time of %s: say up to %s", asked, Longest)
	}
	path := filepath.Join(dir, deadlineFile)
	data, err := os.ReadFile(path)
	var d deadline
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return time.Time{}, fmt.Errorf("read the end of the learning time: %w", err)
	default:
		if err := json.Unmarshal(data, &d); err != nil {
			return time.Time{}, fmt.Errorf("read the end of the learning time from %s: %w", path, err)
		}
		if left := d.Until.Sub(now.Round(0)); d.Asked == asked && left <= asked {
			return now.Add(left), nil
		}
	}
	d = deadline{asked, now.Add(asked).UTC()}
	if data, err = json.Marshal(d); err != nil {
		return time.Time{}, err
	}
	if err := replace(path, data); err != nil {
		return time.Time{}, fmt.Errorf("keep the end of the learning time: %w", err)
	}
	return now.Add(asked), nil
}

// Begun is the event that says so.
func Begun(until time.Time) core.Event {
	return core.Event{Kind: core.EventFinding, Stage: core.StageConfig, Severity: core.SeverityHigh, Reason: core.EventLearning,
		Detail: "every public destination is allowed and recorded until " + until.UTC().Format(time.RFC3339)}
}

// Over is the event that the time is over.
func Over() core.Event {
	return core.Event{Kind: core.EventLifecycle, Stage: core.StageConfig, Severity: core.SeverityInfo, Reason: core.EventLearningOver,
		Detail: "only what the policy allows is allowed; supervisor-network learn export writes what was seen as a policy"}
}

// replace puts a whole file in the place of another.
func replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
