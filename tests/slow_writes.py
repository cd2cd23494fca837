"""Artifacts that stay half written for a while, so that a test can kill something meanwhile.

The store's own code runs, and the libraries' below it: on a folder the copying stops half-way, on S3 a real upload in
several parts stops after the first. An artifact too small for parts waits before its only request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

from infra.jobs import StageJob
from infra.storage.s3 import S3
from infra.store import Store
from speech.stages import STAGES

PART = 5 << 20
"""Bytes of one; S3 accepts none smaller but the last."""

Pause = Callable[[], Awaitable[None]]


def size_of(job: StageJob) -> int:
    """Bytes of an artifact that goes up in parts, and that no other recording leaves: what is in the store is not written."""
    return 2 * PART + int(job.key[:4], 16)


@contextlib.contextmanager
def held(store: Store, job: StageJob, halfway: Pause | None) -> Iterator[None]:
    """Have the artifact of `job` stay half written while `halfway` is awaited."""
    if halfway is None:
        yield
        return
    place = f"artifacts/{STAGES[job.stage].output}/"
    with _copying(place, halfway) if store.storage.on_disk(place) else _uploading(store, place, halfway):
        yield


@contextlib.contextmanager
def _copying(place: str, halfway: Pause) -> Iterator[None]:
    copy = shutil.copyfileobj

    def slow(source: Any, target: Any, length: int = 0) -> None:
        if place not in getattr(target, "name", ""):
            copy(source, target, length)
            return
        content = source.read()
        target.write(content[: len(content) // 2])
        target.flush()
        asyncio.run(halfway())  # copying is a thread's work
        target.write(content[len(content) // 2 :])

    shutil.copyfileobj = slow  # type: ignore[assignment]
    try:
        yield
    finally:
        shutil.copyfileobj = copy


@contextlib.contextmanager
def _uploading(store: Store, place: str, halfway: Pause) -> Iterator[None]:
    fs = cast(S3, store.storage).fs
    put_file, call = fs.put_file, fs._call_s3

    async def slow(method: str, *args: Any, **kwargs: Any) -> Any:
        key = str(kwargs.get("Key", ""))
        if place in key and (method == "put_object" or (method == "upload_part" and kwargs.get("PartNumber") == 2)):
            await halfway()
        return await call(method, *args, **kwargs)

    fs.put_file, fs._call_s3 = functools.partial(put_file, chunksize=PART), slow
    try:
        yield
    finally:
        fs.put_file, fs._call_s3 = put_file, call
