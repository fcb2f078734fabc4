package metadata

// The generated code lies in ./sqlc; add a query to a file of ./queries and run go generate.
//go:generate sh -c "cd ../.. && sqlc generate"
