// Makes one call through the proxy and ends: node call.js <socket>
const grpc = require('@grpc/grpc-js');
const client = new grpc.Client('unix:' + process.argv[2], grpc.credentials.createInsecure());
const bytes = (b) => b;
const metadata = new grpc.Metadata();
metadata.set('x-grpc-test-echo-initial', 'from node');
const call = client.makeUnaryRequest('/grpc.testing.TestService/UnaryCall', bytes, bytes,
  Buffer.from([0x10, 0x80, 0x20]), // response_size: 4096
  metadata, { deadline: Date.now() + 20000 }, (err, answer) => {
    if (err) {
      console.log(err.code, err.details);
      process.exit(1);
    }
    console.log('answer', answer.length);
    client.close();
  });
call.on('metadata', (md) => console.log('metadata', md.get('x-grpc-test-echo-initial')[0]));
