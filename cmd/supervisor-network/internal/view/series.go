package view

import "time"

// series is a ring of counts, a step of time each.
type series struct {
	step   time.Duration
	points []counts
	newest int64 // steps since 1970
}

func newSeries(now time.Time, step time.Duration, points int) series {
	return series{step: step, points: make([]counts, points), newest: stepOf(now, step)}
}

func stepOf(t time.Time, step time.Duration) int64 { return t.Unix() / int64(step/time.Second) }

// add counts c at the time t. A clock that was set back counts in the newest point.
func (s *series) add(t time.Time, c counts) {
	n := int64(len(s.points))
	to := stepOf(t, s.step)
	for at := max(s.newest+1, to-n+1); at <= to; at++ {
		s.points[at%n] = counts{}
	}
	s.newest = max(s.newest, to)
	p := &s.points[s.newest%n]
	for i := range c {
		p[i] += c[i]
	}
}

// columns are the points, the oldest first; the last one is not over yet.
func (s *series) columns() Series {
	n := int64(len(s.points))
	out := Series{StepSeconds: int(s.step / time.Second), End: time.Unix((s.newest+1)*int64(s.step/time.Second), 0).UTC()}
	for i := range n {
		p := s.points[(s.newest+1+i)%n]
		out.Allowed = append(out.Allowed, p[allowed])
		out.Failed = append(out.Failed, p[failed])
		out.Denied = append(out.Denied, p[denied])
		out.Bypassed = append(out.Bypassed, p[bypassed])
	}
	return out
}

// rate is the average a second over the last n whole steps.
func (s *series) rate(n int64) Rates {
	var sum counts
	for i := range n {
		p := s.points[(s.newest-1-i)%int64(len(s.points))]
		for o := range sum {
			sum[o] += p[o]
		}
	}
	per := func(o int) float64 { return float64(sum[o]) / float64(n) / s.step.Seconds() }
	return Rates{per(allowed), per(failed), per(denied), per(bypassed)}
}
