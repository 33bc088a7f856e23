// A gRPC server over mutual TLS with one thread. UnaryCall computes as many milliseconds
// as the metadata takes-ms says, and nothing else happens meanwhile.
//
// node busy.js DIR, with ca.pem, server.pem and server.key in DIR. Prints its port.
const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const raw = (path) => ({
  path, requestStream: false, responseStream: false,
  requestSerialize: (b) => b, requestDeserialize: (b) => b,
  responseSerialize: (b) => b, responseDeserialize: (b) => b,
});
const read = (name) => fs.readFileSync(`${process.argv[2]}/${name}`);

const server = new grpc.Server();
server.addService({ UnaryCall: raw('/grpc.testing.TestService/UnaryCall') }, {
  UnaryCall(call, done) {
    const end = Date.now() + Number(call.metadata.get('takes-ms')[0] || 0);
    while (Date.now() < end);
    done(null, Buffer.alloc(0));
  },
});
server.addService({ Check: raw('/grpc.health.v1.Health/Check') }, {
  Check(call, done) { done(null, Buffer.from([8, 1])); },
});
const credentials = grpc.ServerCredentials.createSsl(
  read('ca.pem'), [{ private_key: read('server.key'), cert_chain: read('server.pem') }], true);
server.bindAsync('127.0.0.1:0', credentials, (err, port) => {
  if (err) throw err;
  console.log(port);
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
