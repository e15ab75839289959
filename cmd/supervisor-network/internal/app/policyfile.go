package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/splitpod/splitpod/pkg/core/policy"
)

// maxPolicyBytes bounds a policy file.
const maxPolicyBytes = 1 << 20

// policyFile is one version of the file: valid, or with the problems it has.
type policyFile struct {
	doc      *policy.Document
	warnings []policy.Problem
	digest   string // hex SHA-256 of the bytes
	err      error
}

func readPolicy(path string) policyFile {
	f, err := os.Open(path)
	if err != nil {
		return policyFile{err: fmt.Errorf("read the policy: %w", err)}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPolicyBytes+1))
	if err != nil {
		return policyFile{err: fmt.Errorf("read the policy: %w", err)}
	}
	if len(data) > maxPolicyBytes {
		return policyFile{err: fmt.Errorf("read the policy: %s is larger than %d bytes", path, maxPolicyBytes)}
	}
	sum := sha256.Sum256(data)
	doc, warnings, err := policy.Parse(path, data)
	return policyFile{doc: doc, warnings: warnings, digest: hex.EncodeToString(sum[:]), err: err}
}

// settle is how long the file must be quiet before it is read again: editors and
// the kubelet write in several steps.
const settle = 100 * time.Millisecond

// watchPolicy calls changed with every new version of the file until ctx ends. It
// watches the folder, because a ConfigMap is replaced by swapping a link in it, and
// looks by itself now and then in case a notification was lost.
func watchPolicy(ctx context.Context, path, digest string, log *slog.Logger, changed func(policyFile)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the policy: %w", err)
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("watch the policy: %w", err)
	}
	poll := time.NewTicker(10 * time.Second)
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	last := digest
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			quiet.Reset(settle)
			continue
		case err := <-w.Errors:
			log.Warn("policy watch failed; polling goes on", slog.Any("error", err))
			continue
		case <-quiet.C:
		case <-poll.C:
		}
		next := readPolicy(path)
		key := next.digest
		if next.digest == "" {
			key = next.err.Error()
		}
		if key != last {
			last = key
			changed(next)
		}
	}
}
