package v2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/quayctl/quayctl/internal/metadata/sqlc"
)

// position is what the continuation token of the catalogue holds.
type position struct {
	StartID int64 `json:"start_id"`
}

// catalog lists the repositories that the client may see, in the order of their ids.
func (m *manifests) catalog(h *Handler, w http.ResponseWriter, r *http.Request, q *Request) error {
	ctx := r.Context()
	query := r.URL.Query()
	n := int64(maxPage)
	if query.Has("n") {
		n, _ = integer(query.Get("n"))
		n = min(max(n, 1), maxPage)
	}
	page := sqlc.CatalogPageParams{Public: h.Config.Features.PublicCatalog, Count: n + 1}
	var err error
	if page.StartID, err = m.startID(h, ctx, query); err != nil {
		return err
	}
	if name := q.Access.Identity.Username; name != "" {
		account, err := h.DB.Read(ctx).CatalogAccount(ctx, name)
		switch {
		case err == nil:
			page.AccountID = &account.ID
			page.Everything = slices.Contains(h.Config.GlobalReadonlySuperUsers, account.Username)
		case errors.Is(err, pgx.ErrNoRows): // gone or disabled: sees nothing
			return answerJSON(w, r, map[string][]string{"repositories": {}})
		default:
			return fmt.Errorf("look up account %s: %w", name, err)
		}
	}
	names := []string{}
	if page.AccountID != nil || page.Public {
		rows, err := h.DB.Read(ctx).CatalogPage(ctx, page)
		if err != nil {
			return fmt.Errorf("list repositories: %w", err)
		}
		if int64(len(rows)) > n {
			token, err := m.pages.Encode(fmt.Sprintf(`{"start_id": %d}`, rows[n].ID))
			if err != nil {
				return err
			}
			w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?n=%d&next_page=%s>; rel="next"`, n, url.QueryEscape(token)))
			rows = rows[:n]
		}
		for _, row := range rows {
			names = append(names, row.Namespace+"/"+row.Name)
		}
	}
	return answerJSON(w, r, map[string][]string{"repositories": names})
}

// startID is where the page begins. Beside the tokens it takes what the distribution specification says of last: the last
// name that the client has. A name contains a slash, which a token never does.
func (m *manifests) startID(h *Handler, ctx context.Context, query url.Values) (int64, error) {
	token := query.Get("next_page")
	if token == "" {
		token = query.Get("last")
	}
	namespace, name, isName := strings.Cut(token, "/")
	if !isName {
		var at position
		m.pages.Decode(token, &at)
		return at.StartID, nil
	}
	id, err := h.DB.Read(ctx).RepositoryIDOfName(ctx, sqlc.RepositoryIDOfNameParams{Namespace: namespace, Name: name})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up repository %s: %w", token, err)
	}
	return id + 1, nil
}
