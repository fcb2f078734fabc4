// Package service is the life that all daemons share: command line, log, metrics, health,
// listeners, readiness, watchdog and drain.
//
// A daemon fills a Daemon and calls Run. Its start:
//
//  1. the admin listener serves (/livez, /readyz, /metrics, /version);
//  2. the background functions start;
//  3. the checks are repeated until each has passed; the one that fails is told to systemd as STATUS;
//  4. the public listeners open and serve, READY=1 is sent.
//
// The public listeners open last, so that a client never gets an answer from a daemon that cannot give
// one: on a unix socket its dial fails and it tries again, on an inherited socket its connection waits
// for this process or is taken by the one that still runs.
//
// Its end, on SIGTERM, SIGINT, the end of Run's context or an error of a background function:
//
//  1. STOPPING=1, /readyz answers 503;
//  2. own unix sockets are unlinked, other listeners closed;
//  3. for DrainGrace requests are answered with Connection: close, on idle connections too;
//  4. http.Server.Shutdown, until DrainLimit has passed since the beginning;
//  5. the background functions are cancelled and awaited, then the OnDrain functions run in order;
//  6. the admin listener closes.
package service
