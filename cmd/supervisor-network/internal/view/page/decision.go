package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// maxDecision bounds what is sent with a decision.
const maxDecision = 8 << 10

// Decision is what a person says about a proposal.
type Decision struct {
	ID      string `json:"id"`
	Verdict string `json:"verdict"` // approve or reject
	Hash    string `json:"hash"`    // to approve: of the change that was looked at
	Reason  string `json:"reason"`  // to reject: for whoever proposed it
}

// Decider carries out a decision, or says why not.
type Decider func(context.Context, Decision) error

// decide takes a decision. It is answered in JSON: done, or error.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request) {
	d, status, err := h.decision(r)
	if status == http.StatusForbidden && h.options.Refused != nil {
		h.options.Refused(r, status, Stranger)
	}
	if err == nil {
		status = http.StatusConflict
		err = h.options.Decide(r.Context(), d)
		h.forget() // what is shown next is what became of it
	}
	answer := map[string]string{}
	if err != nil {
		answer["error"] = err.Error()
	} else {
		status, answer["done"] = http.StatusOK, d.Verdict
	}
	body, err := json.Marshal(answer)
	if err != nil {
		panic(fmt.Sprintf("BUG: an answer cannot be encoded: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// decision reads a decision of somebody who may make it. A page of another origin
// cannot send one: it does not know the token, may not set the fields that are wanted
// here, and says where it comes from.
func (h *Handler) decision(r *http.Request) (d Decision, status int, err error) {
	kind, _, kindErr := mime.ParseMediaType(r.Header.Get("Content-Type"))
	origin := r.Header.Get("Origin")
	site := r.Header.Get("Sec-Fetch-Site")
	switch {
	case origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host || site != "" && site != "same-origin":
		return d, http.StatusForbidden, errors.New("decisions are not taken from other pages")
	case kindErr != nil || kind != "application/json":
		return d, http.StatusUnsupportedMediaType, errors.New("a decision is application/json")
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxDecision+1))
	switch {
	case err != nil:
		return d, http.StatusBadRequest, errors.New("the decision did not arrive whole")
	case len(data) > maxDecision:
		return d, http.StatusRequestEntityTooLarge, fmt.Errorf("a decision is at most %d bytes", maxDecision)
	}
	read := json.NewDecoder(bytes.NewReader(data))
	read.DisallowUnknownFields()
	if err := read.Decode(&d); err != nil || len(bytes.TrimSpace(data[read.InputOffset():])) > 0 {
		return d, http.StatusBadRequest, errors.New("the decision is no JSON object of the kind that is wanted")
	}
	ok := d.ID != "" && (d.Verdict == "approve" && d.Hash != "" && d.Reason == "" || d.Verdict == "reject" && d.Hash == "")
	if !ok {
		return d, http.StatusBadRequest, errors.New("say id and verdict: approve with the hash of the change, or reject with a reason")
	}
	return d, 0, nil
}
