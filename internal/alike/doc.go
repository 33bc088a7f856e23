// Package alike has no code of its own: its tests make the same calls on a plain channel
// of grpc.NewClient, on one of scale.NewClient and on a pool, and compare what happens.
//
// Whoever puts a pool in the place of a channel expects that every call stays what it was:
// that it fails fast or waits, is tried again, times out and is seen by interceptors and
// stats handlers exactly as gRPC says. So the tests have a table: states that a channel can
// be in, by behaviours that a program can ask for, by unary and streaming calls. For each
// they compare the status, its words, how long the call took (at once, a while, until its
// deadline), and what interceptors, stats handlers, call options and the server saw.
//
// What may differ is listed in allowed_test.go, each entry with its reason. An entry says
// exactly what happens instead, and one that is not needed any more fails the test.
//
// Servers and networks are in memory, and time is that of testing/synctest.
package alike
