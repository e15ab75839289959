package credentials

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// usageFile, in the state directory, is what a running daemon says about its keys.
const usageFile = "credentials.json"

// Usage is what is known of all keys at one moment.
type Usage struct {
	Written time.Time `json:"written"`
	Keys    []Listing `json:"keys"`
}

// Write replaces the usage in a state directory in one step.
func (u Usage) Write(dir string) error {
	data, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, usageFile+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, usageFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// ReadUsage reads what a daemon last wrote to its state directory.
func ReadUsage(dir string) (u Usage, err error) {
	data, err := os.ReadFile(filepath.Join(dir, usageFile))
	if err == nil {
		err = json.Unmarshal(data, &u)
	}
	return u, err
}
