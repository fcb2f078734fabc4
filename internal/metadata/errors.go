package metadata

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATE values, see appendix A of PostgreSQL's manual.
const (
	foreignKeyViolation  = "23503"
	uniqueViolation      = "23505"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	readOnlyTransaction  = "25006"
	tooManyConnections   = "53300"
)

// IsUniqueViolation says that a row with the same unique values exists. With names, only for the unique indexes or
// constraints of these names.
func IsUniqueViolation(err error, names ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == uniqueViolation && (len(names) == 0 || slices.Contains(names, pg.ConstraintName))
}

// IsForeignKeyViolation says that a row named by another one does not exist, or that one to be deleted is still named.
func IsForeignKeyViolation(err error) bool { return hasCode(err, foreignKeyViolation) }

// IsConflict says that the transaction lost against another one and may be tried again as a whole.
func IsConflict(err error) bool { return hasCode(err, serializationFailure, deadlockDetected) }

// IsReadOnly says that a write reached a server, or a pool, for reads only.
func IsReadOnly(err error) bool { return hasCode(err, readOnlyTransaction) }

// IsUnavailable says that the server could not be reached, went away, or (a replica) gave the query up to follow its
// writer: the query itself may be sound.
func IsUnavailable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == tooManyConnections || pg.Code == serializationFailure ||
			strings.HasPrefix(pg.Code, "57P") || // shut down, starting, crashed
			strings.HasPrefix(pg.Code, "08") // connection
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func hasCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(codes, pg.Code)
}
