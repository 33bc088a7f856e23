// Package grpcpooltest helps to test programs that use go-grpcpool or plain gRPC. It has
// servers in memory and on loopback, certificates for mutual TLS, and faults on demand. The file usage_test.go of this package has tests to
// copy: a restart, a blackhole, a stream limit, a renewed certificate.
//
// A test of what a program does while its server restarts:
//
//	synctest.Test(t, func(t *testing.T) {
//		server := grpcpooltest.NewServer(t, grpcpooltest.WithInMemory(),
//			grpcpooltest.WithServices(func(r grpc.ServiceRegistrar) { pb.RegisterGreeterServer(r, greeter{}) }))
//		cc, err := grpc.NewClient(server.Target(), server.DialOptions()...)
//		if err != nil {
//			t.Fatal(err)
//		}
//		defer cc.Close()
//		server.Stop()
//		time.AfterFunc(time.Minute, server.Start)
//		// A call with grpc.WaitForReady(true) succeeds after the minute, which passes at once.
//	})
//
// # Servers
//
// [NewServer] starts a gRPC server with the services of [WithServices], a health
// service, and grpc.testing's TestService and BenchmarkService, so that a test of
// connections needs no service of its own. By default it listens on a free port of
// 127.0.0.1. With [WithInMemory] it uses no socket and runs in a bubble of
// testing/synctest. [WithMutualTLS] serves mutual TLS with new certificates.
// Target and DialOptions have what a client needs. The server is stopped when
// its test ends.
//
// A [Standalone] is the same server for programs that are not tests, such as demos:
// it returns errors where a Server fails its test.
//
// # Faults
//
//	fault                                        begins with               ends with
//	the server is down, connections are cut      Server.Stop               Server.Start
//	the server shuts down gracefully             Server.GracefulStop       Server.Start
//	connections are to be replaced (GOAWAY)      Server.GoAway             by itself
//	few calls at a time on a connection          Server.SetStreamLimit     Server.SetStreamLimit(0)
//	the health service says NOT_SERVING          Health.SetServingStatus   Health.SetServingStatus
//	other certificates                           Server.UseCerts           Server.UseCerts
//	bytes vanish, dials hang                     Link.Blackhole            Link.Heal
//	bytes vanish one way                         Link.Drop                 Link.Heal
//	connections are accepted, never answered     Link.Hang                 Link.Heal
//	dials are refused                            Link.Refuse               Link.Heal
//	everything is slow                           Link.Delay                Link.Delay(0)
//	connections are reset                        Link.Reset                by itself
//
// A [Link] is the network between a client and any server: see [NewLink].
//
// [Standalone.Counts] tells how many connections and calls a server has seen, and how
// many calls at a time. The package h2test, below this one, has a server that speaks
// HTTP/2 without gRPC's help: it changes the limit of open connections, counts
// the streams that violate it, and breaks the protocol on demand.
//
// # Certificates
//
// [NewCerts] makes an authority, a server's certificate for localhost and a client's
// certificate. [CA.Issue] makes others: expired, for other names, with a SPIFFE ID.
// [Certs.Renew] and [Certs.WriteFiles] are for tests of rotation. The keys live in
// memory; use none of it in production.
package grpcpooltest
