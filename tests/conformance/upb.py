#!/usr/bin/env python3
"""Reads encoded OTLP requests and their JSON with Google's protobuf (upb) and the official bindings.

    upb.py FILE

FILE holds any number of cases: a byte for the signal (m, t, l or p), the length of the request and of its JSON (4 bytes
each, little-endian), the request, the JSON. Prints one line of JSON:

    cases           how many there were
    unknown_fields  what the official bindings have no field for, in all of them
    same            requests that upb's own encoder writes with the same bytes
    oneof           those that it writes with the same fields in another order, because members of a oneof have numbers on
                    both sides of another field's: upb goes by number, prost keeps the oneof together
    different       all others
    same_json       cases whose JSON says the same as the request

Exit status: 0 when all of this is as it should be.
"""

import base64
import json
import struct
import sys

from google.protobuf import json_format, unknown_fields
from google.protobuf.internal import api_implementation
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

REQUESTS = {
    b"m": metrics_service_pb2.ExportMetricsServiceRequest,
    b"t": trace_service_pb2.ExportTraceServiceRequest,
    b"l": logs_service_pb2.ExportLogsServiceRequest,
    b"p": profiles_service_pb2.ExportProfilesServiceRequest,
}

# Hexadecimal in OTLP JSON, base64 in that of protobuf.
IDS = {"traceId", "spanId", "parentSpanId", "profileId"}


def messages(message):
    """A message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            # A singular message has no length; the repeated ones are sequences.
            for nested in value if hasattr(value, "__len__") else [value]:
                yield from messages(nested)


def splits_oneof(message):
    """Whether a oneof's member that is set is beyond another field that is set, and the oneof's first member is not."""
    present = [field for field, _ in message.ListFields()]
    for member in present:
        if member.containing_oneof is not None:
            first = min(field.number for field in member.containing_oneof.fields)
            if any(first < other.number < member.number for other in present):
                return True
    return False


def with_base64_ids(value, key=None):
    if isinstance(value, dict):
        return {key: with_base64_ids(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [with_base64_ids(item) for item in value]
    if key in IDS:
        return base64.b64encode(bytes.fromhex(value)).decode()
    return value


def cases(file):
    while head := file.read(9):
        signal, request_len, json_len = struct.unpack("<cII", head)
        yield REQUESTS[signal], file.read(request_len), file.read(json_len)


def main():
    counts = dict.fromkeys(["cases", "unknown_fields", "same", "oneof", "different", "same_json"], 0)
    with open(sys.argv[1], "rb") as file:
        for request_type, encoded, line in cases(file):
            counts["cases"] += 1
            request = request_type.FromString(encoded)
            counts["unknown_fields"] += sum(len(unknown_fields.UnknownFieldSet(each)) for each in messages(request))
            again = request.SerializeToString(deterministic=True)
            if again == encoded:
                counts["same"] += 1
            elif len(again) == len(encoded) and any(splits_oneof(each) for each in messages(request)):
                counts["oneof"] += 1
            else:
                counts["different"] += 1
            from_json = json_format.ParseDict(with_base64_ids(json.loads(line)), request_type())
            counts["same_json"] += from_json.SerializeToString(deterministic=True) == again
    print(json.dumps({"protobuf": api_implementation.Type(), **counts}))
    good = counts["same"] + counts["oneof"] == counts["cases"] == counts["same_json"]
    return 0 if good and counts["unknown_fields"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
