"""What orchestration costs: `python -m bench.overhead [--recordings 100] [--modal]`.

Runs the whole flow with stages that take no time of their own (`tests.stub_compute`'s artifacts), for one recording and for
`--recordings`, four at a time, against a Prefect server of its own: what is measured is Prefect, the store and the records. With
`--modal` every stage with a model is a real call on the local server that speaks Modal's protocol, answered by a container that
does nothing, so that the difference is the calls' own: upload, spawn, wait, download. The first run, which starts everything, is not
counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

AT_ONCE = 4


async def flow_seconds(folder: Path, first: int, count: int) -> tuple[float, float]:
    """Wall seconds of `count` recordings, and the mean of what their stages report as their own."""
    from flows.request import TranscribeRequest
    from flows.transcribe import transcribe
    from tests.stage_double import recording

    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> float:
        source = recording(folder / f"{number}.wav", seed=number)
        async with free:
            result = await transcribe(TranscribeRequest(source=str(source), output_dir=str(folder / "out")))
        return sum(stage.compute_seconds or 0.0 for stage in result.stages if stage.state == "computed")

    began = time.perf_counter()
    computed = await asyncio.gather(*(one(first + i) for i in range(count)))
    return time.perf_counter() - began, sum(computed) / count


@contextlib.contextmanager
def environment(folder: Path, backend: str) -> Iterator[None]:
    """A home of its own, and a Prefect server of its own."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from flows.local_server.server import TemporaryServer
    from infra.settings import get_settings

    os.environ |= {"STENO_HOME": str(folder / "home"), "STENO_COMPUTE__BACKEND": backend, "STENO_OFFLINE": "true"}
    os.environ |= {"PREFECT_LOGGING_LEVEL": "ERROR", "STENO_MODEL": "tiny.en"}
    get_settings.cache_clear()
    os.environ["PREFECT_HOME"] = str(folder / "prefect")
    server = TemporaryServer()
    try:
        server.wait()
        with temporary_settings({PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: server.auth}):
            yield
    finally:
        server.stop()


def measure(backend: str, recordings: int) -> str:
    with tempfile.TemporaryDirectory() as name, environment(Path(name), backend):
        return asyncio.run(_measure(Path(name), backend, recordings))


async def _measure(folder: Path, backend: str, recordings: int) -> str:
    await flow_seconds(folder, 0, 1)
    alone, _ = await flow_seconds(folder, 1, 1)
    together, _ = await flow_seconds(folder, 2, recordings)
    where = "modal" if backend == MODAL else "local"
    each = together / recordings
    return f"| {where} | {alone:.2f} s | {together:.1f} s | {each:.2f} s | {AT_ONCE * each:.2f} s |"


LOCAL = "bench.overhead_backends:local"
MODAL = "bench.overhead_backends:modal"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recordings", type=int, default=100, help="how many after the first (default: %(default)s)")
    parser.add_argument("--modal", action="store_true", help="also through Modal's client and containers, on a local server")
    asked = parser.parse_args()
    rows = [measure(LOCAL, asked.recordings)]
    if asked.modal:
        from bench.overhead_backends import modal_server

        with modal_server():
            rows.append(measure(MODAL, asked.recordings))
    print(f"| stages | one recording | {asked.recordings} recordings | each | each, while {AT_ONCE} are at work |")
    print("|" + " --- |" * 5)
    print("\n".join(rows))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
