// Package telemetry holds registryd's metrics, under the names and labels of the legacy server, so that dashboards and
// alerts go on working.
package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are registryd's own; the process's are package service's.
type Metrics struct {
	requests      *prometheus.HistogramVec
	pulls         *prometheus.CounterVec
	pushes        *prometheus.CounterVec
	pulledBytes   *prometheus.CounterVec
	pushedBytes   prometheus.Counter
	chunkUploads  *prometheus.HistogramVec
	authAttempts  *prometheus.CounterVec
	bearerTokens  *prometheus.CounterVec
	keyRenewals   *prometheus.CounterVec
	trackedSpaces map[string]bool
}

// New registers the metrics. Requests carry a namespace label only for the tracked namespaces.
func New(registry prometheus.Registerer, tracked []string) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.DefBuckets}, labels)
	}
	m := &Metrics{
		requests:      histogram("quay_request_duration_seconds", "Time a request took.", "method", "route", "status", "namespace_name"),
		pulls:         counter("quay_registry_image_pulls_total", "Manifests that were fetched.", "protocol", "ref", "status"),
		pushes:        counter("quay_registry_image_pushes_total", "Manifests that were put.", "protocol", "status", "media_type"),
		pulledBytes:   counter("quay_registry_image_pulled_estimated_bytes_total", "Bytes of blobs that were sent, or to which clients were redirected.", "protocol"),
		pushedBytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "quay_registry_image_pushed_bytes_total", Help: "Bytes of blobs that were received."}),
		chunkUploads:  histogram("quay_chunk_upload_duration_seconds", "Time to receive and store a part of a blob.", "region"),
		authAttempts:  counter("quay_authentication_attempts_total", "Credentials that were checked.", "auth_kind", "success"),
		bearerTokens:  counter("bearer_token_decoded_total", "Bearer tokens that were checked.", "success"),
		keyRenewals:   counter("quay_instance_key_renewal_self_total", "Extensions of this instance's service key.", "success"),
		trackedSpaces: map[string]bool{},
	}
	for _, n := range tracked {
		m.trackedSpaces[n] = true
	}
	for _, c := range []prometheus.Collector{m.requests, m.pulls, m.pushes, m.pulledBytes, m.pushedBytes, m.chunkUploads,
		m.authAttempts, m.bearerTokens, m.keyRenewals} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Request counts a request and its time; route is the endpoint's name, empty when there was none.
func (m *Metrics) Request(method, route, namespace string, status int, took time.Duration) {
	if !m.trackedSpaces[namespace] {
		namespace = ""
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status), namespace).Observe(took.Seconds())
}

// Pull counts a fetched manifest; ref is "tag" or "manifest".
func (m *Metrics) Pull(ref string, status int) {
	m.pulls.WithLabelValues("v2", ref, strconv.Itoa(status)).Inc()
}

// Push counts a put manifest.
func (m *Metrics) Push(status int, mediaType string) {
	m.pushes.WithLabelValues("v2", strconv.Itoa(status), mediaType).Inc()
}

// PulledBytes counts a blob that was sent.
func (m *Metrics) PulledBytes(n int64) { m.pulledBytes.WithLabelValues("v2").Add(float64(n)) }

// PushedBytes counts blob bytes that were received.
func (m *Metrics) PushedBytes(n int64) { m.pushedBytes.Add(float64(n)) }

// V1Pull counts a pull by version 1 that began, or did not.
func (m *Metrics) V1Pull(status int) {
	m.pulls.WithLabelValues("v1", "tag", strconv.Itoa(status)).Inc()
}

// V1Push counts a push by version 1 that ended, well or not.
func (m *Metrics) V1Push(status int) { m.pushes.WithLabelValues("v1", strconv.Itoa(status), "").Inc() }

// V1PulledBytes counts a layer that was sent by version 1.
func (m *Metrics) V1PulledBytes(n int64) { m.pulledBytes.WithLabelValues("v1").Add(float64(n)) }

// ChunkUpload counts a part of an upload; location is where it went.
func (m *Metrics) ChunkUpload(location string, took time.Duration) {
	m.chunkUploads.WithLabelValues(location).Observe(took.Seconds())
}

// AuthAttempt counts a check of credentials of the kind basic, robot, token, ….
func (m *Metrics) AuthAttempt(kind string, success bool) {
	m.authAttempts.WithLabelValues(kind, capitalised(success)).Inc()
}

// BearerToken counts a check of a bearer token.
func (m *Metrics) BearerToken(success bool) {
	m.bearerTokens.WithLabelValues(capitalised(success)).Inc()
}

// KeyRenewal counts an extension of the instance key.
func (m *Metrics) KeyRenewal(success bool) { m.keyRenewals.WithLabelValues(capitalised(success)).Inc() }

// capitalised is how Python writes a truth value into a label.
func capitalised(b bool) string {
	if b {
		return "True"
	}
	return "False"
}
