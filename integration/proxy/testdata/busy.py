"""A gRPC server with two workers, over mutual TLS. Calls wait for a worker, the health
service's too. UnaryCall takes as many milliseconds as the metadata takes-ms says.

busy.py DIR, with ca.pem, server.pem and server.key in DIR. Prints its port.
"""
import sys
import time
from concurrent import futures

import grpc


def unary_call(request, context):
    takes = dict(context.invocation_metadata()).get("takes-ms", "0")
    time.sleep(int(takes) / 1000)
    return b""


def check(request, context):
    return b"\x08\x01"  # SERVING


def service(name, method, handler):
    handlers = {method: grpc.unary_unary_rpc_method_handler(handler)}
    return grpc.method_handlers_generic_handler(name, handlers)


def read(name):
    with open(sys.argv[1] + "/" + name, "rb") as f:
        return f.read()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
server.add_generic_rpc_handlers((
    service("grpc.testing.TestService", "UnaryCall", unary_call),
    service("grpc.health.v1.Health", "Check", check),
))
credentials = grpc.ssl_server_credentials(
    [(read("server.key"), read("server.pem"))], read("ca.pem"), require_client_auth=True)
port = server.add_secure_port("127.0.0.1:0", credentials)
server.start()
print(port, flush=True)
sys.stdin.read()  # until the test ends
server.stop(None)
