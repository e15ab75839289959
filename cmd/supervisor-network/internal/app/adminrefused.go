package app

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/view/page"
	"github.com/splitpod/splitpod/pkg/core"
)

// refusedEvery is how often refusals on the admin address and socket for one reason are
// recorded, after the first one.
const refusedEvery = time.Minute

// adminRefusals records who was not answered on the admin address and socket. The first
// refusal for a reason is recorded at once, and those behind it in one record a minute
// that says how many they were and where the newest came from: whoever guesses a token
// fills no log, and cannot hide either. Every one is counted at once.
type adminRefusals struct {
	record func(core.Event)
	count  func(core.Reason)

	mu  sync.Mutex
	all map[refusalKey]*adminRefusal // guarded by mu
}

// refusalKey is what is counted together: what matters less hides nothing.
type refusalKey struct {
	reason   core.Reason
	severity core.Severity
}

type adminRefusal struct {
	newest core.Event
	more   uint64 // that are not recorded
	last   time.Time
}

// add takes one refusal.
func (a *adminRefusals) add(ev core.Event) {
	a.count(ev.Reason)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	key := refusalKey{ev.Reason, ev.Severity}
	r := a.all[key]
	if r == nil {
		if a.all == nil {
			a.all = make(map[refusalKey]*adminRefusal)
		}
		r = &adminRefusal{}
		a.all[key] = r
	}
	r.newest = ev
	r.more++
	if r.last.IsZero() || now.Sub(r.last) >= refusedEvery {
		a.flush(r, now)
	}
}

// flush records what was only counted. Preconditions: mu is held.
func (a *adminRefusals) flush(r *adminRefusal, now time.Time) {
	if r.more == 0 {
		return
	}
	r.newest.Count = r.more
	a.record(r.newest)
	r.more, r.last = 0, now
}

// run records what was only counted, once a minute, and when ctx ends.
func (a *adminRefusals) run(ctx context.Context) error {
	tick := time.NewTicker(refusedEvery)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true
		}
		a.flushAll()
	}
	return nil
}

func (a *adminRefusals) flushAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.all {
		a.flush(r, time.Now())
	}
}

// page takes a refusal on the admin address.
func (a *adminRefusals) page(r *http.Request, status int, why page.Refusal) {
	ev := core.Event{Kind: core.EventLifecycle, Stage: core.StageAPI, Severity: core.SeverityLow, UID: core.NoUID,
		Method: r.Method, Path: r.URL.Path, Status: status}
	ev.Source, _ = netip.ParseAddrPort(r.RemoteAddr)
	if at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		own := at.AddrPort()
		ev.Host, ev.Port = own.Addr().Unmap().String(), own.Port()
	}
	switch why {
	case page.NoToken:
		ev.Reason, ev.Detail = core.EventAdminTokenMissing, "the page of a browser asks so once, before its reader has given the token"
	case page.WrongToken:
		ev.Reason, ev.Detail, ev.Severity = core.EventAdminTokenWrong, "an old token, or somebody who guesses", core.SeverityMedium
	case page.Unreadable:
		ev.Reason, ev.Detail, ev.Severity = core.EventAdminTokenUnread, "nobody is admitted until --admin-token names a file with a token", core.SeverityMedium
	default:
		ev.Reason, ev.Detail = core.EventAdminRefused, "the live view answers this pod's loopback alone, and decisions come from its own page"
	}
	a.add(ev)
}

// socket takes a refusal on the admin socket.
func (a *adminRefusals) socket(err error) {
	a.add(core.Event{Kind: core.EventLifecycle, Stage: core.StageAPI, Severity: core.SeverityHigh, UID: core.NoUID,
		Reason: core.EventAdminRefused, Path: "socket", Detail: err.Error()})
}

// newAdminRefusals makes an adminRefusals for this daemon.
func (d *daemon) newAdminRefusals() *adminRefusals {
	return &adminRefusals{record: d.record.Own, count: d.meter.AdminRefused}
}
