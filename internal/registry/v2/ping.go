package v2

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/quayctl/quayctl/internal/auth"
	"github.com/quayctl/quayctl/internal/registry/regerr"
)

// PingRoutes is the probe with which every client begins.
func PingRoutes() []Route {
	return []Route{{Name: "v2.v2_support_enabled", Method: http.MethodGet, Shape: ShapePing, Need: auth.None, Handle: (*Handler).ping}}
}

// ping answers "true": 200 to any valid token, 401 without one. The challenge is always there.
func (h *Handler) ping(w http.ResponseWriter, r *http.Request, q *Request) error {
	if !h.Config.Features.AdvertiseV2 || tooOldForV2(r.UserAgent()) {
		return &regerr.Abort{Status: http.StatusNotFound}
	}
	status := http.StatusUnauthorized
	if q.Access.HasContext {
		status = http.StatusOK
	}
	header := w.Header()
	header.Set("Docker-Distribution-API-Version", "registry/2.0")
	header.Set("WWW-Authenticate", h.challenge(""))
	header.Set("X-Sparse-Manifest-Support", strconv.FormatBool(h.Config.Features.SparseIndex))
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", "4")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte("true"))
	}
	return nil
}

var dockerVersion = regexp.MustCompile(`docker/([0-9]+)\.([0-9]+)`)

// tooOldForV2 tells Docker before 1.6.0 (the default of cfg BLACKLIST_V2_SPEC), which spoke this protocol badly.
func tooOldForV2(userAgent string) bool {
	m := dockerVersion.FindStringSubmatch(strings.ToLower(userAgent))
	if m == nil {
		return false
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	return err1 == nil && err2 == nil && (major < 1 || major == 1 && minor < 6)
}
