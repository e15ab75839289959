package record

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/splitpod/splitpod/pkg/core"
	"github.com/splitpod/splitpod/pkg/core/ocsf"
)

func TestAnEntryIsNotBegunInThePlaceOfOneThatWasNotWritten(t *testing.T) {
	var out bytes.Buffer
	r, began := New(ocsf.Context{}, nil, Sink{Out: &out}), time.Now()
	var e Entry
	r.BeginIn(&e, "0123456789abcdef", began)
	e.Event.Host = "a.test"
	e.Used("KEY")
	e.Deny(core.StageRequest, core.ReasonInternal, "detail")
	r.BeginIn(&e, "fedcba9876543210", began)
	if want := r.Begin("fedcba9876543210", began); !reflect.DeepEqual(*want, e) {
		t.Errorf("something of the last one is left: %+v, want %+v", e, *want)
	}
	defer func() {
		if recover() == nil {
			t.Error("an entry that was not written is lost")
		}
	}()
	r.BeginIn(&e, "0123456789abcdef", began)
}
