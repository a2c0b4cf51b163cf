#!/usr/bin/env python3
"""An OTLP receiver over the official bindings and Google's protobuf.

Listens on 127.0.0.1, over HTTP and, where grpcio is installed, gRPC. Prints `http PORT` (and `grpc PORT`) when it
is ready, and at the end one line of JSON: how many requests of each path, bytes, items of each path, requests that came
gzipped over HTTP, unknown fields, requests that Google's encoder would write with the same bytes, and requests that were refused.

Exit status: 0 when as many requests as asked for arrived and each was decoded without an unknown field, else 1. Who does
not know how many there will be asks for 0, and closes its standard input when there will be no more.
"""

import argparse
import gzip
import http.server
import json
import pathlib
import sys
import threading
import zlib
from concurrent import futures

from google.protobuf import json_format, unknown_fields
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

try:
    import grpc
except ImportError:
    grpc = None

# HTTP path: gRPC service, request, response.
SERVICES = {
    "/v1development/profiles": (
        "opentelemetry.proto.collector.profiles.v1development.ProfilesService",
        profiles_service_pb2.ExportProfilesServiceRequest,
        profiles_service_pb2.ExportProfilesServiceResponse,
    ),
    "/v1/metrics": (
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
    ),
    "/v1/traces": (
        "opentelemetry.proto.collector.trace.v1.TraceService",
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
    ),
    "/v1/logs": (
        "opentelemetry.proto.collector.logs.v1.LogsService",
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
    ),
}


def count_unknown_fields(message):
    """Unknown fields of a message and of all messages in it."""
    count = len(unknown_fields.UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            # A singular message has no length; the repeated ones are sequences.
            nested = value if hasattr(value, "__len__") else [value]
            count += sum(count_unknown_fields(item) for item in nested)
    return count


def count_items(path, request):
    """Data points, spans, log records or samples."""
    kinds = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
    if path == "/v1/metrics":
        metrics = (m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics)
        return sum(len(getattr(metric, kind).data_points) for metric in metrics for kind in kinds)
    if path == "/v1/traces":
        return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
    if path == "/v1/logs":
        return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
    profiles = (p for r in request.resource_profiles for s in r.scope_profiles for p in s.profiles)
    return sum(len(profile.samples) for profile in profiles)


class Received:
    """What arrived so far."""

    def __init__(self, wanted, output, bodies):
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.wanted = wanted
        self.output = output
        self.bodies = bodies
        self.summary = {
            "protobuf": api_implementation.Type(),
            "requests": 0,
            "paths": {},
            "bytes": 0,
            "items": {},
            "gzipped": 0,
            "unknown_fields": 0,
            "canonical": 0,
            "refused": 0,
        }

    def take(self, path, body, gzipped):
        """Decodes a request, which came `gzipped` or not; its response, or None if it can't be decoded."""
        _, request_type, response_type = SERVICES[path]
        with self.lock:
            try:
                request = request_type.FromString(body)
            except DecodeError as error:
                print(f"{path}: {error}", file=sys.stderr)
                self.refuse()
                return None
            summary = self.summary
            summary["requests"] += 1
            summary["paths"][path] = summary["paths"].get(path, 0) + 1
            summary["bytes"] += len(body)
            summary["unknown_fields"] += count_unknown_fields(request)
            summary["canonical"] += request.SerializeToString(deterministic=True) == body
            summary["items"][path] = summary["items"].get(path, 0) + count_items(path, request)
            summary["gzipped"] += gzipped
            if self.bodies:
                (self.bodies / f"{summary['requests']}-{path.rsplit('/', 1)[1]}").write_bytes(body)
            if self.output:
                line = json_format.MessageToJson(request, indent=None)
                self.output.write(line + "\n")
                self.output.flush()
            if summary["requests"] == self.wanted:
                self.done.set()
            return response_type()

    def refuse(self):
        self.summary["refused"] += 1

    def succeeded(self):
        summary = self.summary
        enough = summary["requests"] == self.wanted if self.wanted else summary["requests"] > 0
        return enough and not summary["unknown_fields"] and not summary["refused"]


def http_server(received):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            encoding = self.headers.get("Content-Encoding", "identity")
            if self.path not in SERVICES:
                self.refuse(404, f"no such path: {self.path}")
            elif self.headers.get("Content-Type") != "application/x-protobuf":
                self.refuse(415, "not application/x-protobuf")
            elif encoding not in ("identity", "gzip"):
                self.refuse(415, f"unknown encoding: {encoding}")
            else:
                try:
                    gzipped = encoding == "gzip"
                    response = received.take(self.path, gzip.decompress(body) if gzipped else body, gzipped)
                except (OSError, EOFError, zlib.error) as error:
                    self.refuse(400, str(error))
                    return
                if response is None:
                    self.answer(400, b"")
                else:
                    self.answer(200, response.SerializeToString())

        def refuse(self, status, reason):
            print(reason, file=sys.stderr)
            with received.lock:
                received.refuse()
            self.answer(status, b"")

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def grpc_server(received):
    server = grpc.server(futures.ThreadPoolExecutor(4))

    def handler(path):
        def export(body, context):
            # grpcio decompresses, and does not say so.
            response = received.take(path, body, False)
            if response is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a request")
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(export)

    for path, (service, _, _) in SERVICES.items():
        handlers = grpc.method_handlers_generic_handler(service, {"Export": handler(path)})
        server.add_generic_rpc_handlers([handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1, help="leave after so many requests (default 1); 0: when standard input ends")
    parser.add_argument("--timeout", type=float, default=30, help="leave after so many seconds (default 30)")
    parser.add_argument("--output", type=argparse.FileType("w"), help="write the requests there, one JSON a line")
    parser.add_argument("--bodies", type=pathlib.Path, help="write the requests there as they came, as 1-metrics, 2-logs, ...")
    options = parser.parse_args()

    received = Received(options.requests, options.output, options.bodies)
    http_half = http_server(received)
    print(f"http {http_half.server_address[1]}", flush=True)
    grpc_half = None
    if grpc is not None:
        grpc_half, port = grpc_server(received)
        print(f"grpc {port}", flush=True)

    if options.requests == 0:
        sys.stdin.read()
    else:
        received.done.wait(options.timeout)
    # Answers that are under way get out before their connections close.
    http_half.shutdown()
    if grpc_half is not None:
        grpc_half.stop(grace=1).wait()
    with received.lock:
        print(json.dumps(received.summary), flush=True)
        return 0 if received.succeeded() else 1


if __name__ == "__main__":
    sys.exit(main())
