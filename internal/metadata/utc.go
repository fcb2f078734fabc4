package metadata

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgtype"
)

// utcCodec writes a time.Time into a timestamp without time zone as UTC. pgx itself writes the clock's digits in
// whatever zone the value carries, which moves a local time by its offset.
type utcCodec struct{ *pgtype.TimestampCodec }

// PlanEncode implements pgtype.Codec.
func (c utcCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	plan := c.TimestampCodec.PlanEncode(m, oid, format, value)
	if plan == nil {
		return nil
	}
	return utcPlan{plan}
}

type utcPlan struct{ plan pgtype.EncodePlan }

// Encode implements pgtype.EncodePlan.
func (p utcPlan) Encode(value any, buf []byte) ([]byte, error) {
	valuer, ok := value.(pgtype.TimestampValuer)
	if !ok {
		return nil, fmt.Errorf("encode timestamp: %T is no time", value)
	}
	ts, err := valuer.TimestampValue()
	if err != nil {
		return nil, err
	}
	ts.Time = ts.Time.UTC()
	return p.plan.Encode(ts, buf)
}
