package edge

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the edge's own; all names begin with quay_edge_.
type metrics struct {
	requests          *prometheus.CounterVec
	duration          *prometheus.HistogramVec
	sentBytes         *prometheus.CounterVec
	offloadBytes      prometheus.Counter
	offloadMisses     prometheus.Counter
	dialFailures      prometheus.Counter
	reloads           *prometheus.CounterVec
	certificateEnd    prometheus.Gauge
	certificateBroken prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quay_edge_requests_total", Help: "Requests by route family and status class.",
		}, []string{"route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quay_edge_request_duration_seconds", Help: "Time from a request's header to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
		}, []string{"route"}),
		sentBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quay_edge_response_bytes_total", Help: "Bytes of bodies sent, by route family.",
		}, []string{"route"}),
		offloadBytes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "quay_edge_offload_bytes_total", Help: "Bytes of blobs sent straight from storage."}),
		offloadMisses: prometheus.NewCounter(prometheus.CounterOpts{Name: "quay_edge_offload_misses_total", Help: "Blobs that could not be opened, so that registryd was asked again."}),
		dialFailures:  prometheus.NewCounter(prometheus.CounterOpts{Name: "quay_edge_registryd_dial_failures_total", Help: "Failed attempts to reach registryd; each is repeated for ten seconds."}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quay_edge_certificate_loads_total", Help: "Certificate pairs read from disk, by result (ok, failed).",
		}, []string{"result"}),
		certificateEnd:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "quay_edge_certificate_not_after_seconds", Help: "When the certificate in use expires, in seconds since 1970."}),
		certificateBroken: prometheus.NewGauge(prometheus.GaugeOpts{Name: "quay_edge_certificate_broken", Help: "1 while the pair on disk cannot be used and the last good one serves."}),
	}
	reg.MustRegister(m.requests, m.duration, m.sentBytes, m.offloadBytes, m.offloadMisses, m.dialFailures, m.reloads, m.certificateEnd, m.certificateBroken)
	return m
}

func (m *metrics) observe(r route, status int, took time.Duration, sent int64) {
	m.requests.WithLabelValues(string(r), strconv.Itoa(status/100)+"xx").Inc()
	m.duration.WithLabelValues(string(r)).Observe(took.Seconds())
	m.sentBytes.WithLabelValues(string(r)).Add(float64(sent))
}
