package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestStreamsAreBoundedOverAllConnections: a connection carries many, and there are many
// connections.
func TestStreamsAreBoundedOverAllConnections(t *testing.T) {
	w := newWorld(t, 5*time.Second, endpoint("a.example.com", 443, ""))
	w.places = newPlaces(2)
	reached, answer := make(chan bool), make(chan bool)
	w.origin("a.example.com", 443, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- true
		<-answer
	}), "http/1.1")
	clients := []*http.Client{w.client(true), w.client(true), w.client(true)}
	get := func(i int) int {
		resp, err := clients[i].Get("https://a.example.com/")
		if err != nil {
			t.Error(err)
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	done := make(chan int)
	for i := range 2 {
		go func() { done <- get(i) }()
		<-reached
	}
	for i := range clients { // new and old
		if status := get(i); status != 503 {
			t.Errorf("one too many: %d", status)
		}
	}
	answer <- true
	if status := <-done; status != 200 {
		t.Errorf("one of the two: %d", status)
	}
	w.until("a place is free", func() bool { return w.places.taken.Load() == 1 })
	go func() { done <- get(2) }()
	<-reached
	for range 2 {
		answer <- true
		if status := <-done; status != 200 {
			t.Errorf("after it: %d", status)
		}
	}
	w.until("no place is taken", func() bool { return w.places.taken.Load() == 0 })
	w.until("the records", func() bool { return strings.Count(fmt.Sprint(w.records.list()), "too_many_connections") >= 3 })
}
