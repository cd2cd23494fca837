"""S3 as the store uses it: s3fs, with one owner of retries, and bodies that arrive whole or not at all.

As they come, three layers retry: botocore each request, s3fs each request again and the reading of small bodies, and
neither retries what the other gives up on. Here botocore and s3fs try once, and `RetryBudget` decides about everything.

Imported where an `s3://` store is opened, since s3fs takes a while to import.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import sync, sync_wrapper
from s3fs import S3FileSystem

from infra.settings import S3Settings
from infra.storage_errors import RemoteFault, remote_fault, remote_status

PART_BYTES = 16 << 20
"""Larger files travel in parts of this size, a few at a time."""
_PARTS_AT_ONCE = 4
_BLOCK_BYTES = 1 << 20
_SLOWEST = 16 * 1024
"""Bytes per second; a body slower than this over a whole time-out is asked for again."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_LEAST_ATTEMPTS = 3
"""Also when the first ones alone outlast the budget, as time-outs do."""

T = TypeVar("T")


def s3_options(s3: S3Settings) -> dict[str, Any]:
    """s3fs's storage options for these settings; what is empty is left to the AWS default chain."""
    options: dict[str, Any] = {"skip_instance_cache": True}
    if s3.key and s3.secret:
        options |= {"key": s3.key.get_secret_value(), "secret": s3.secret.get_secret_value()}
    if s3.token:
        options["token"] = s3.token.get_secret_value()
    client = {name: value for name, value in (("endpoint_url", s3.endpoint_url), ("region_name", s3.region)) if value}
    if client:
        options["client_kwargs"] = client
    # s3fs retries as well: botocore's defaults times its own would make a dead endpoint fail after many minutes.
    config: dict[str, Any] = {
        "connect_timeout": min(10.0, s3.timeout),
        "read_timeout": s3.timeout,
        "retries": {"mode": "standard", "max_attempts": 2},
    }
    if s3.addressing_style != "auto":
        config["s3"] = {"addressing_style": s3.addressing_style}
    options["config_kwargs"] = config
    return options


class RetryBudget:
    """How long one operation goes on after faults that may pass: back-off with jitter, bounded in time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.progressed()

    def progressed(self) -> None:
        """Start anew: something arrived."""
        self._end, self._failures = time.monotonic() + self._seconds, 0

    async def after(self, error: Exception) -> None:
        """Wait before the next attempt, or raise `error` when another one is of no use or the time is up."""
        self._failures += 1
        over = self._failures >= _LEAST_ATTEMPTS and time.monotonic() > self._end
        if over or remote_fault(error) is not RemoteFault.TRANSIENT:
            raise error
        # Many runs are throttled at once: without jitter they would also come back at once.
        await asyncio.sleep(min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0))


class PatientS3(S3FileSystem):  # type: ignore[misc]
    """s3fs whose requests are repeated for `patience` seconds, and whose `info` is of objects only."""

    retries = 1

    def __init__(self, *args: Any, s3: S3Settings, **options: Any) -> None:
        super().__init__(*args, **options)
        self._patience, self._timeout = s3.patience, s3.timeout

    @classmethod
    def of(cls, s3: S3Settings) -> PatientS3:
        options = s3_options(s3) | {"use_listings_cache": False}
        options["config_kwargs"] |= {"retries": {"mode": "standard", "total_max_attempts": 1}}
        return cls(s3=s3, **options)

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        return await self._patiently(lambda: self._once(method, *akwarglist, **kwargs))

    call_s3 = sync_wrapper(_call_s3)

    async def _once(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        body = kwargs.get("Body", b"")
        async with asyncio.timeout(self._limit(len(body) if isinstance(body, bytes) else 0)):
            return await super()._call_s3(method, *akwarglist, **kwargs)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        budget = RetryBudget(self._patience)
        while True:
            try:
                return await attempt()
            except Exception as error:
                await budget.after(error)

    def _limit(self, size: int) -> float:
        """Seconds that a request with or for so many bytes may take, connecting and answering included."""
        return 2 * self._timeout + size / _SLOWEST

    async def _cat_file(self, path: str, version_id: Any = None, start: Any = None, end: Any = None, **options: Any) -> bytes:
        if start is not None or end is not None or version_id is not None:
            return bytes(await super()._cat_file(path, version_id=version_id, start=start, end=end, **options))
        bucket, key, _ = self.split_path(path)

        async def attempt() -> bytes:
            answer = await self._once("get_object", Bucket=bucket, Key=key)
            try:
                async with asyncio.timeout(self._limit(answer["ContentLength"])):
                    return bytes(await answer["Body"].read())
            finally:
                answer["Body"].close()

        return await self._patiently(attempt)

    async def _info(self, path: str, bucket: Any = None, key: Any = None, **options: Any) -> dict[str, Any]:
        """One request, where s3fs follows a miss by a second one that asks for a folder of that name."""
        bucket, key, _ = self.split_path(self._strip_protocol(path))
        if not key:
            return dict(await super()._info(path, **options))
        head = await self._call_s3("head_object", Bucket=bucket, Key=key)
        return {
            "name": f"{bucket}/{key}",
            "type": "file",
            "size": head["ContentLength"],
            "ETag": head.get("ETag", ""),
            "LastModified": head["LastModified"],
            "ContentType": head.get("ContentType"),
        }

    async def _put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        await super()._put_file(lpath, rpath, **({"chunksize": PART_BYTES, "max_concurrency": _PARTS_AT_ONCE} | options))

    def download(self, path: str, target: Path, size: int) -> None:
        """Bring an object of `size` bytes to `target`. Raises EOFError when it has another size."""
        sync(self.loop, self._download, path, target, size)

    async def _download(self, path: str, target: Path, size: int) -> None:
        bucket, key, _ = self.split_path(path)
        with target.open("r+b") as file:
            os.ftruncate(file.fileno(), size)
            part = _Part(bucket, key, file.fileno(), size)
            # The first part says which object it is of; the others must be of the same one.
            await self._receive(part, 0, min(PART_BYTES, size))
            slots = asyncio.Semaphore(_PARTS_AT_ONCE)

            async def receive(start: int) -> None:
                async with slots:
                    await self._receive(part, start, min(start + PART_BYTES, size))

            try:
                async with asyncio.TaskGroup() as group:
                    for start in range(PART_BYTES, size, PART_BYTES):
                        group.create_task(receive(start))
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None

    async def _receive(self, part: _Part, start: int, stop: int) -> None:
        """Bytes `start` to `stop`; where the connection breaks, the rest is asked for."""
        budget = RetryBudget(self._patience)
        while start < stop:
            received = start
            try:
                async with aclosing(self._blocks(part, start, stop)) as blocks:
                    async for block in blocks:
                        start += os.pwrite(part.file, block, start)
            except Exception as error:
                if remote_status(error) in (412, 416):
                    raise EOFError(part.key) from error  # another object by now, or a shorter one
                if start > received:
                    budget.progressed()
                await budget.after(error)

    async def _blocks(self, part: _Part, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        match = {"IfMatch": part.etag} if part.etag else {}
        answer = await self._once("get_object", Bucket=part.bucket, Key=part.key, Range=f"bytes={start}-{stop - 1}", **match)
        body = answer["Body"]
        try:
            part.etag = answer.get("ETag")
            if int(str(answer.get("ContentRange", part.size)).rpartition("/")[2]) != part.size:
                raise EOFError(part.key)
            while start < stop:
                began, seen = time.monotonic(), start
                while start < stop and time.monotonic() - began < self._timeout:
                    async with asyncio.timeout(self._timeout):
                        block = await body.read(min(_BLOCK_BYTES, stop - start))
                    if not block:
                        raise ConnectionError("the body ended early")
                    start += len(block)
                    yield block
                if start < stop and start - seen < _SLOWEST * self._timeout:
                    raise TimeoutError("the body comes too slowly")
        finally:
            body.close()


class _Part:
    """Where the parts of one object come from and go to."""

    def __init__(self, bucket: str, key: str, file: int, size: int) -> None:
        self.bucket, self.key, self.file, self.size = bucket, key, file, size
        self.etag: str | None = None
