// Package identity gives gRPC channels a client certificate, the roots that they
// verify the server with, and further checks: public key pins, revocation lists, a
// function of the program's own. Certificates may come from PEM, from files, or from a
// function, and may be renewed while the program runs: every handshake shows the
// newest, and the connections made under the old one are replaced without failing calls.
//
//	provider, err := identity.FromFiles("ca.crt", "tls.crt", "tls.key")
//	...
//	defer provider.Close()
//
//	conn, err := scale.NewClient("api.example.com:443", provider.DialOption())
//	...
//	client := pb.NewGreeterClient(conn)
//
// One [Provider] serves any number of channels with one watch over its files, which runs
// only while there are channels that use it. For a pool, give it to
// grpcpool.NewIdentityFactory. With a plain grpc.NewClient every handshake shows the
// newest certificate, but a connection keeps the certificate that it was made with.
//
// TLS 1.3 is the minimum (see [WithMinTLSVersion]) and the server must speak HTTP/2 (ALPN
// "h2", RFC 9113 section 3.2). No handshake resumes a TLS session: a resumed session
// would keep the certificate of the handshake that began it, past its renewal. There
// is no way to skip the verification of the server.
package identity
