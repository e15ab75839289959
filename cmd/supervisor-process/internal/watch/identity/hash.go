package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Limits of the trust on first use.
const (
	maxPrograms     = 10_000  // different paths
	maxProgramBytes = 2 << 30 // of one file
	hashTimeout     = 30 * time.Second
	maxHashing      = 4               // files at a time, whose hashes outlive the questions
	hashPatience    = 5 * time.Second // of a file for its turn
)

var (
	errProgramChanged = errors.New("the program's content differs from its first use")
	errTooManyFiles   = errors.New("too many different programs have been seen")
	errTooLarge       = errors.New("the program's file is too large to be hashed")
	errHashing        = errors.New("too many new programs are being hashed; try again")
)

// trust remembers what each program was when it was first seen, for the life of the
// daemon: a path never changes its content unnoticed.
type trust struct {
	flight  singleflight.Group
	hashing chan struct{} // of maxHashing places
	hashed  atomic.Uint64 // files

	mu    sync.RWMutex
	first map[string]trusted // guarded by mu
}

type trusted struct {
	sha256 string
	file   fingerprint // the file it was computed from, last
}

// check returns the SHA-256 of a process's program. It fails with
// errProgramChanged when the path had another content before.
func (t *trust) check(ctx context.Context, fs procfs, p *process) (string, error) {
	t.mu.RLock()
	known, ok := t.first[p.exe]
	t.mu.RUnlock()
	if ok && known.file == p.file {
		return known.sha256, nil
	}
	// Whoever asks first hashes; its own deadline does not end the others' wait.
	result := t.flight.DoChan(fmt.Sprintf("%s\x00%v", p.exe, p.file), func() (any, error) {
		turn := time.NewTimer(hashPatience)
		defer turn.Stop()
		select {
		case t.hashing <- struct{}{}:
			defer func() { <-t.hashing }()
		case <-turn.C:
			return "", errHashing
		}
		f, err := fs.program(p)
		if err != nil {
			return "", err
		}
		defer f.Close()
		defer t.hashed.Add(1)
		return sum(f)
	})
	select {
	case <-ctx.Done():
		return "", fmt.Errorf("hash %s: %w", p.exe, context.Cause(ctx))
	case r := <-result:
		if r.Err != nil {
			return "", fmt.Errorf("hash %s: %w", p.exe, r.Err)
		}
		return t.remember(p, r.Val.(string))
	}
}

func sum(f io.Reader) (string, error) {
	h := sha256.New()
	deadline := time.Now().Add(hashTimeout)
	buf := make([]byte, 256<<10)
	for total := 0; ; {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		total += n
		switch {
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(h.Sum(nil)), nil
		case err != nil:
			return "", err
		case total > maxProgramBytes:
			return "", errTooLarge
		case time.Now().After(deadline):
			return "", errors.New("reading it takes too long")
		}
	}
}

func (t *trust) remember(p *process, sum string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.first[p.exe]
	switch {
	case ok && known.sha256 != sum:
		return "", fmt.Errorf("%w: %s; restart the sandbox to trust the new content", errProgramChanged, p.exe)
	case !ok && len(t.first) >= maxPrograms:
		return "", errTooManyFiles
	}
	if t.first == nil {
		t.first = make(map[string]trusted)
	}
	t.first[p.exe] = trusted{sum, p.file}
	return sum, nil
}
