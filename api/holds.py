"""What the store keeps for jobs beside artifacts, and several jobs may share: uploads, and addresses with secrets in them.

Each is identified by a tag of its jobs, and deleted with the last of them. The tag exists only once the run is created:
until then a *hold* protects it, a record that is written before the data, under a lock that deletion also acquires.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator

from api import tags
from infra.compute import get_store
from infra.names import file_suffix
from infra.storage import Lock
from stenoflow.errors import TransientError

UPLOADS = "uploads"
_HOLDS = "holds"
_HOLD_SECONDS = 900.0
"""Seconds after which the hold of a killed process expires; creating a run takes seconds."""
_PATIENCE, _PAUSE = 60.0, 0.05


def place_of(sha256: str, name: str) -> str:
    """Where an upload is kept: by its content, with the extension that decoders may want."""
    return f"{UPLOADS}/{sha256[:2]}/{sha256}{file_suffix(name)}"


async def hold(tag: str) -> str:
    """Protect the data of the tag from deletion; returns the hold to `release` once a job has the tag."""
    return await asyncio.to_thread(_hold, tag)


async def release(held: Iterable[str]) -> None:
    """Release the holds, even if the caller is cancelled meanwhile."""
    store = await asyncio.to_thread(get_store)
    for name in held:
        await asyncio.shield(asyncio.to_thread(store.delete_record, name))


@contextlib.asynccontextmanager
async def holding(of: Iterable[str], also: str | None = None) -> AsyncIterator[None]:
    """Hold the stored sources among the tags while the block lasts; `also`, a hold acquired earlier, ends with it."""
    holds = [also] if also else []
    try:
        holds += [await hold(tag) for tag in of if not also and tag.startswith((tags.UPLOAD, tags.HANDLE))]
        yield
    finally:
        await release(holds)


@contextlib.asynccontextmanager
async def unless_held(tag: str) -> AsyncIterator[bool]:
    """Whether the tag has no hold; none can be acquired while the block lasts."""
    lock = await asyncio.to_thread(_lock, tag)
    try:
        yield not await asyncio.to_thread(_is_held, tag)
    finally:
        await asyncio.shield(asyncio.to_thread(lock.release))


def remove(tag: str) -> None:
    """Delete the data of the tag: the recording, with any extension, or the address."""
    store = get_store()
    if tag.startswith(tags.HANDLE):
        store.delete_record(f"handles/{tag.removeprefix(tags.HANDLE)}")
        return
    sha256 = tag.removeprefix(tags.UPLOAD)
    for path in [path for path, found, _ in _uploads(f"{UPLOADS}/{sha256[:2]}") if found == sha256]:
        store.delete(path)


def uploads() -> list[tuple[str, float]]:
    """The tags of all uploads, and how many seconds ago each was kept last."""
    return [(f"{tags.UPLOAD}{sha256}", age) for _, sha256, age in _uploads(UPLOADS)]


def forget_holds() -> None:
    """Remove those of processes that were killed."""
    store = get_store()
    for file in list(store.files(f"records/{_HOLDS}")):
        if time.time() - file.modified > _HOLD_SECONDS:
            store.delete_record(file.path.removeprefix("records/"))


def _uploads(folder: str) -> Iterator[tuple[str, str, float]]:
    """Path, content, and age in seconds."""
    for file in list(get_store().files(folder)):
        yield file.path, file.path.rpartition("/")[2].partition(".")[0], time.time() - file.modified


def _hold(tag: str) -> str:
    lock = _lock(tag)
    try:
        name = f"{_HOLDS}/{_key(tag)}/{uuid.uuid4().hex}"
        get_store().write_record(name, b"{}")
        return name
    finally:
        lock.release()


def _is_held(tag: str) -> bool:
    """By whom it counts; before the runs are looked at: a hold that is released has left a run."""
    found = get_store().files(f"records/{_HOLDS}/{_key(tag)}")
    return any(time.time() - file.modified < _HOLD_SECONDS for file in found)


def _lock(tag: str) -> Lock:
    locks, end = get_store().locks, time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if (lock := locks.try_acquire(_key(tag))) is not None:
            return lock
        time.sleep(_PAUSE)
    raise TransientError("The store is busy with this recording; try again in a moment.")


def _key(tag: str) -> str:
    return tag.replace(":", "-")
