package app

import (
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-process/internal/report"
	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
)

// TestTheEndWaitsForNoReaderForEver: whoever does not read the records may be whoever does not
// read the log, which is told of it.
func TestTheEndWaitsForNoReaderForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unread, out := io.Pipe()
		unreadToo, log := io.Pipe()
		d := &daemon{log: slog.New(slog.NewTextHandler(log, nil)), report: report.New(ocsf.Context{}, nil, report.Sink{Out: out})}
		stop := d.runRecords()
		d.report.Here(core.Event{Kind: core.EventLifecycle})
		began := time.Now()
		stop()
		if took := time.Since(began); took != 2*outputPatience {
			t.Errorf("the end took %v", took)
		}
		unread.Close()
		unreadToo.Close()
		synctest.Wait()
	})
}
