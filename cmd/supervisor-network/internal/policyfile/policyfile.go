// Package policyfile reads the policy file and sees when there is another version of it.
//
// It answers the threat of a change that is missed, or seen half: the folder is watched and
// not the file, a lost notification costs seconds, what is still being written is waited
// for, and a folder that is never quiet delays no change for longer than a second. What a
// file says, and whether that may be in force, is said elsewhere (pkg/core/policy, app).
package policyfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/splitpod/splitpod/pkg/core/policy"
	"github.com/splitpod/splitpod/pkg/core/strictyaml"
)

// File is one version of the file: valid, or with the problems it has.
type File struct {
	Doc      *policy.Document
	Warnings []strictyaml.Problem
	Digest   string // hex SHA-256 of the bytes
	Err      error
	Deny     bool // an invalid one denies everything, whatever is configured
}

// Read reads the file as it is now.
func Read(path string) File {
	data, err := strictyaml.Load(path)
	if err != nil {
		return File{Err: fmt.Errorf("read the policy: %w", err)}
	}
	sum := sha256.Sum256(data)
	doc, warnings, err := policy.Parse(path, data)
	return File{Doc: doc, Warnings: warnings, Digest: hex.EncodeToString(sum[:]), Err: err}
}

// settle is how long the folder must be quiet before the file is read again, because
// editors write in several steps, and patience how long a folder that is never quiet
// is waited for.
const (
	settle   = 100 * time.Millisecond
	patience = time.Second
)

// swapped is the link of a ConfigMap's folder, which leads to whole files only.
const swapped = "..data"

// Watch calls changed with every new version of the file until ctx ends. It
// watches the folder, because a ConfigMap is replaced by swapping a link in it, and
// looks by itself now and then in case a notification was lost, or nobody gives any: a
// node has so many watchers for one user (fs.inotify), whatever needs them.
func Watch(ctx context.Context, path, digest string, log *slog.Logger, changed func(File)) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		w = &fsnotify.Watcher{} // without events
	} else {
		defer w.Close()
		err = w.Add(filepath.Dir(path))
	}
	if err != nil {
		log.Warn("policy cannot be watched; it is polled", slog.Any("error", err))
	}
	poll := time.NewTicker(10 * time.Second)
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	last := digest
	var first time.Time // of the changes that were not looked at
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.Events:
			if filepath.Base(e.Name) == swapped && e.Has(fsnotify.Create) {
				break // whole at once
			}
			if first.IsZero() {
				first = time.Now()
			}
			quiet.Reset(min(settle, time.Until(first.Add(patience))))
			continue
		case err := <-w.Errors:
			log.Warn("policy watch failed; polling goes on", slog.Any("error", err))
			continue
		case <-quiet.C:
		case <-poll.C:
		}
		first = time.Time{}
		quiet.Stop()
		next := Read(path)
		if errors.Is(next.Err, syscall.EMFILE) || errors.Is(next.Err, syscall.ENFILE) {
			log.Warn("policy cannot be read now; it is tried again", slog.Any("error", next.Err))
			quiet.Reset(patience) // that says nothing about the file
			continue
		}
		key := next.Digest
		if next.Digest == "" {
			key = next.Err.Error()
		}
		if key != last {
			last = key
			changed(next)
		}
	}
}
