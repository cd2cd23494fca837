"""As much of curl as the guide's examples use, for machines that have none."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true", help="as ever")
    parser.add_argument("-f", action="store_true", help="22 for an error")
    parser.add_argument("-N", action="store_true", help="as ever")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("-F", dest="fields", action="append", default=[])
    parser.add_argument("-o", dest="output", type=Path)
    asked = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in asked.headers)
    form: dict[str, Any] = {}
    with ExitStack() as opened:
        for name, _, value in (field.partition("=") for field in asked.fields):
            if value.startswith("@"):
                path = Path(value[1:])
                form.setdefault("files", {})[name] = (path.name, opened.enter_context(path.open("rb")))
            else:
                form.setdefault("data", {})[name] = value
        method = asked.method or ("POST" if form or asked.data is not None else "GET")
        content = asked.data.encode() if asked.data is not None else None
        answer = httpx.request(method, asked.url, headers=headers, content=content, timeout=300, trust_env=False, **form)
    if asked.f and answer.is_error:
        return 22
    if asked.output:
        asked.output.write_bytes(answer.content)
    else:
        sys.stdout.buffer.write(answer.content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
