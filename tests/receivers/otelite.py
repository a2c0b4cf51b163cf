#!/usr/bin/env python3
"""otelite.py OTELITE GENERATOR

Lets GENERATOR (`otlp-generate`) send metrics, traces and logs to OTELITE, which answers protobuf requests with JSON,
and reads back what it holds over its REST interface. Run where ports 3000, 4317 and 4318 are free.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

REQUESTS = 4
ITEMS = 50
API = "http://127.0.0.1:3000/api/"


def get(path):
    with urllib.request.urlopen(API + path, timeout=10) as answer:
        return json.load(answer)


def wait_until_it_listens(otelite):
    for _ in range(200):
        try:
            get("metrics/names")
            return
        except OSError:
            assert otelite.poll() is None, "otelite ended"
            time.sleep(0.1)
    raise AssertionError("otelite does not listen")


def generate(generator, protocol, port, compression, first):
    command = [generator, "--endpoint", f"http://127.0.0.1:{port}", "--count", str(REQUESTS), "--items", str(ITEMS)]
    command += ["--first", str(first), "--signal", "metrics", "--signal", "traces", "--signal", "logs"]
    variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_COMPRESSION": compression}
    output = subprocess.run(command, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)[0]


def main():
    path, generator = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "HOME": directory, "NO_COLOR": "1"}
        command = [path, "--log-level", "error", "serve", "--storage-path", directory]
        otelite = subprocess.Popen(command, env=environment)
        try:
            wait_until_it_listens(otelite)
            first = 0
            # It refuses gzip over gRPC.
            for protocol, port, compression in (
                ("http/protobuf", 4318, "none"),
                ("http/protobuf", 4318, "gzip"),
                ("grpc", 4317, "none"),
            ):
                sent = generate(generator, protocol, port, compression, first)
                for signal, counts in sent["signals"].items():
                    taken = counts["delivered"]["items"] + counts["rejected"]["items"]
                    # What it cannot store, observations of last buckets among them, it calls rejected points.
                    assert (counts["rejected"]["items"] > 0) == (signal == "metrics"), f"{protocol}: {sent}"
                    assert taken == REQUESTS * ITEMS and not counts["dropped"], f"{protocol}, {signal}: {sent}"
                first += REQUESTS * ITEMS
            refused = generate(generator, "grpc", 4317, "gzip", first)
            assert all(counts["dropped"] for counts in refused["signals"].values()), refused
            read_back(first)
        finally:
            otelite.terminate()
            otelite.wait()


def read_back(items):
    def numbers(entries):
        return sorted(int(entry["attributes"]["test.number"]) for entry in entries)

    assert numbers(get("logs?limit=1000")["logs"]) == list(range(items))
    traces = get("traces?limit=1000")["traces"]
    assert len({trace["trace_id"] for trace in traces}) == items
    assert all(trace["service_names"] == ["checkout"] for trace in traces)
    # It stores no exponential histograms, which one point in five is.
    metrics = numbers(get("metrics?limit=1000"))
    assert metrics == [number for number in range(items) if number % 5 != 1], metrics
    print(f"otelite: {items} log records, {items} spans, {len(metrics)} of {items} data points")


if __name__ == "__main__":
    sys.exit(main())
