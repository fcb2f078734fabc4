// Package edge is the front door: the only process that the outside reaches.
//
// It ends TLS, gives each request an id, limits bodies, forwards /v2 and /v1 to registryd over a unix
// socket, sends blobs that registryd has authorised straight from local storage, and answers the health
// routes for the whole appliance. It holds no state, so two of them may serve one inherited socket.
package edge
