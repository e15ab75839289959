package secret

import (
	"context"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long folders must be quiet before files are read: the kubelet and
// editors write in several steps.
const settle = 100 * time.Millisecond

// most is the longest that unrest in a folder can put reading off.
const most = time.Second

// Watch calls changed whenever something may have changed in one of the folders,
// which that call returns anew, and at least once in every interval, in case a
// notification was lost. It ends with ctx. A folder that cannot be watched is left
// to the interval, and so are all where the node has no watcher left (fs.inotify).
func Watch(ctx context.Context, folders []string, interval time.Duration, log *slog.Logger, changed func() []string) {
	w, err := fsnotify.NewWatcher()
	watch := func([]string) {}
	if err != nil {
		log.Warn("secrets cannot be watched; they are polled", slog.Any("error", err))
		w = &fsnotify.Watcher{} // without events
	} else {
		defer w.Close()
		watched := map[string]bool{}
		watch = func(folders []string) { follow(w, watched, folders, log) }
	}
	watch(folders)
	poll := time.NewTicker(interval)
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	var since time.Time // of the first event that is not read yet
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.Events:
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) < most {
				quiet.Reset(settle)
			}
			continue
		case err := <-w.Errors:
			log.Warn("secret watch failed; polling goes on", slog.Any("error", err))
			continue
		case <-quiet.C:
		case <-poll.C:
		}
		since = time.Time{}
		watch(changed())
	}
}

// follow makes the watched folders the given ones.
func follow(w *fsnotify.Watcher, watched map[string]bool, folders []string, log *slog.Logger) {
	wanted := make(map[string]bool, len(folders))
	for _, f := range folders {
		wanted[f] = true
		if watched[f] {
			continue
		}
		if err := w.Add(f); err != nil {
			log.Warn("folder of secrets cannot be watched; it is polled", slog.String("folder", f), slog.Any("error", err))
			continue
		}
		watched[f] = true
	}
	for f := range watched {
		if !wanted[f] {
			_ = w.Remove(f)
			delete(watched, f)
		}
	}
}
