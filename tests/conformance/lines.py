#!/usr/bin/env python3
"""Reads OTLP JSON lines with Google's protobuf (upb) and the official bindings.

    lines.py FILE FOLDER

Writes each line of FILE into FOLDER as the request that it is, as 1-metrics, 2-logs, ..., which is how receiver.py names
what it takes. A field that the bindings do not know, and a line that is no request, are errors.
"""

import json
import pathlib
import sys

from google.protobuf import json_format

from upb import REQUESTS, with_base64_ids

SIGNALS = {
    "resourceMetrics": (b"m", "metrics"),
    "resourceSpans": (b"t", "traces"),
    "resourceLogs": (b"l", "logs"),
    "resourceProfiles": (b"p", "profiles"),
}


def main():
    lines, folder = map(pathlib.Path, sys.argv[1:])
    for number, line in enumerate(lines.read_text().splitlines(), 1):
        content = json.loads(line)
        letter, name = next(signal for key, signal in SIGNALS.items() if key in content)
        request = json_format.ParseDict(with_base64_ids(content), REQUESTS[letter]())
        (folder / f"{number}-{name}").write_bytes(request.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
