package v2

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// maxPage is the largest page whatever the configuration says.
const maxPage = 100

// tags lists the names of the tags, in the order of the database's collation.
func (m *manifests) tags(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	repo, err := q.MustRepository(ctx)
	if err != nil {
		return err
	}
	limit := max(h.Config.V2PaginationSize, maxPage)
	n, ok := integer(r.URL.Query().Get("n"))
	if !ok {
		n = limit
	}
	n = min(n, limit)
	names := []string{}
	if n > 0 {
		names, err = h.DB.Read(ctx).TagNames(ctx, sqlc.TagNamesParams{RepositoryID: repo.ID, NowMs: h.Clock.Now().UnixMilli(),
			Last: strings.TrimSpace(r.URL.Query().Get("last")), Count: n + 1})
		if err != nil {
			return fmt.Errorf("list tags: %w", err)
		}
	}
	if int64(len(names)) > n && n > 0 {
		names = names[:n]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, q.Name(), n, url.QueryEscape(names[n-1])))
	}
	return answerJSON(w, r, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.Name(), names})
}

// integer reads a number as leniently as the legacy server.
func integer(text string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n, err == nil
}
