"""What runs use, written in the store while they do, so that collecting garbage leaves it alone.

A run names a stage's key under `records/uses/<run>` *before* it looks up the stage's record. The collector
(`infra.collect`) deletes the record first, then reads the uses again, then deletes the artifact. So either the run finds
the record, and the collector the use; or the run finds no record, and computes. Where what was computed is an artifact
that exists already, writing it is *claimed* first, and what is being removed at that moment is written anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import re
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Protocol

from speech.stored import parsed
from stenoflow.errors import OutputNotWritable, StorageFull, TransientError
from stenoflow.types import Frozen

USES = "uses"
CLAIM = "claim-"
"""Beginning of the names of uses that are claims."""
CONDEMNED = "condemned"
"""The record that names what the collector is about to delete."""
CONDEMNED_SECONDS = 600.0
"""A collector that was killed leaves its last list behind; it is no longer believed after that."""
BEAT_SECONDS = 600.0
_CLAIM_SECONDS = 86_400.0
_PAUSE = 0.2
_PATH = re.compile(r"artifacts/[a-z]+/[0-9a-f]{2}/[0-9a-f]{64}\.[a-z0-9]+")
_KEY = re.compile(r"(?:decoded-)?[0-9a-f]{64}[\w-]*")
"""Names of records that lead to artifacts."""

_log = logging.getLogger(__name__)


class Records(Protocol):
    """What is asked of a store (`infra.store.Store`)."""

    def read_record(self, name: str) -> bytes | None: ...
    def write_record(self, name: str, content: bytes) -> None: ...
    def delete_record(self, name: str) -> None: ...
    def exists(self, path: str) -> bool: ...


class Use(Frozen):
    """What one run uses, or used."""

    run: str
    keys: tuple[str, ...] = ()
    """Of stages, and names of other records."""
    artifacts: tuple[str, ...] = ()
    """Paths in the store."""
    beat: float = 0.0
    """The run's last sign of life, in seconds since 1970."""
    ended: bool = False
    retention: float | None = None
    """Seconds after its end until which nothing of it is removed, and after which everything may be; None: kept for good."""

    claim: bool = False
    """Not of a run: an artifact that was computed again while it was there."""
    by: str = ""
    """The key under which it was computed again, of a claim."""

    def active(self, now: float, grace: float) -> bool:
        """Whether what it names may not be removed, whatever was asked for."""
        if not self.ended and now < self.beat + grace:
            return True
        return self.retention is not None and now < self.beat + self.retention

    def expired(self, now: float, grace: float) -> bool:
        """Whether its time is over, so that what only it names goes."""
        return self.retention is not None and not self.claim and not self.active(now, grace)


class RunUse:
    """Keeps one run's use up to date; one request for everything that was named since the last."""

    def __init__(self, store: Records, run: str, retention_days: float | None) -> None:
        self._store = store
        self._use = Use(run=run, retention=None if retention_days is None else retention_days * 86_400.0)
        self._keys: dict[str, None] = {}
        self._artifacts: dict[str, None] = {}
        self._named = self._written = 0
        self._writing = asyncio.Lock()
        self._warned = False

    async def begin(self) -> None:
        """Go on from an earlier execution of the run, whose finished stages it will look for."""
        with contextlib.suppress(TransientError, OutputNotWritable):
            before = await asyncio.to_thread(read_use, self._store, self._use.run)
            if before is not None:
                self._keys |= dict.fromkeys(before.keys)
                self._artifacts |= dict.fromkeys(before.artifacts)

    async def name(self, *keys: str, artifacts: Iterable[str] = ()) -> None:
        """Have the store say that these are in use; returns once it does."""
        self._keys |= dict.fromkeys(keys)
        self.note(*artifacts)
        self._named += 1
        await self._write(self._named)

    def note(self, *artifacts: str) -> None:
        """To be written with whatever is named next."""
        self._artifacts |= dict.fromkeys(artifacts)

    async def beat(self) -> None:
        """Give signs of life until cancelled."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self.name()

    async def end(self) -> None:
        self._use = self._use.model_copy(update={"ended": True})
        await self.name()

    async def _write(self, wanted: int) -> None:
        """Two branches that name something at once share a write."""
        async with self._writing:
            if self._written >= wanted:
                return
            named = self._named
            use = self._use.model_copy(
                update={"keys": tuple(self._keys), "artifacts": tuple(self._artifacts), "beat": time.time()}
            )
            try:
                await asyncio.to_thread(write_use, self._store, use)
                self._written = named
            except (TransientError, OutputNotWritable, StorageFull) as error:
                # The run itself can do without: what is removed under it is computed again.
                if not self._warned:
                    _log.warning("Could not record which artifacts the run uses: %s", error.message)
                self._warned = True


_current: ContextVar[RunUse | None] = ContextVar("steno_use", default=None)


def enter(use: RunUse) -> None:
    """Make it the one of this context and of the tasks made in it."""
    _current.set(use)


def leave() -> None:
    _current.set(None)


async def in_use(*keys: str, artifacts: Iterable[str] = ()) -> None:
    """Name what this run is about to look up; nothing outside a run."""
    if (use := _current.get()) is not None:
        await use.name(*keys, artifacts=artifacts)


def noted(*artifacts: str) -> None:
    """What this run has found or computed; written with the next name."""
    if (use := _current.get()) is not None:
        use.note(*artifacts)


def read_use(store: Records, name: str) -> Use | None:
    """The use of that name; None where there is none.

    Whatever else a record says, what it names is in use: for good where it is damaged, or of a later version and not to be
    understood, since nothing then says until when.
    """
    content = store.read_record(f"{USES}/{name}")
    if not content:
        return None
    artifacts = sorted(paths_in(content))
    try:
        use = parsed(Use, content)
    except ValueError:
        use = None
    if use is None or "beat" not in use.model_fields_set:
        keys = _KEY.findall(content.decode("utf-8", "replace"))
        return Use(run=name, keys=tuple(keys), artifacts=tuple(artifacts), beat=math.inf)
    return use.model_copy(update={"artifacts": tuple(dict.fromkeys([*use.artifacts, *artifacts]))})


def write_use(store: Records, use: Use) -> None:
    # Release 0.1 reads no use with a field that it does not know.
    later = None if use.by else {"by"}
    store.write_record(f"{USES}/{use.run}", use.model_dump_json(exclude=later).encode())


def paths_in(record: bytes | None) -> frozenset[str]:
    """The artifacts that a record names."""
    return frozenset(_PATH.findall(record.decode("utf-8", "replace"))) if record else frozenset()


def claim_of(store: Records, path: str) -> Use | None:
    """Who last came to this artifact when it was there already."""
    return read_use(store, _claim(path))


def _claim(path: str) -> str:
    return f"{CLAIM}{path.rpartition('/')[2].partition('.')[0]}"


def claimed(store: Records, path: str, by: str = "") -> bool:
    """Keep an artifact that is already there from being collected; False when it is about to be, and must be written again.

    The claim is written before the collector's list is read, and the collector reads the uses after writing its list: one
    of the two sees the other.
    """
    claim = Use(run=_claim(path), artifacts=(path,), beat=time.time(), ended=True, retention=_CLAIM_SECONDS, claim=True, by=by)
    with contextlib.suppress(OutputNotWritable, StorageFull):  # nothing is removed from such a store either
        write_use(store, claim)
    if path not in condemned(store):
        return True
    end = time.monotonic() + CONDEMNED_SECONDS
    while path in condemned(store) and time.monotonic() < end:
        time.sleep(_PAUSE)
    return store.exists(path)


def condemned(store: Records) -> frozenset[str]:
    """What a collector at work is about to delete."""
    content = store.read_record(CONDEMNED)
    try:
        record = json.loads(content) if content else {}
        return frozenset(record["paths"]) if record and record["at"] > time.time() - CONDEMNED_SECONDS else frozenset()
    except (ValueError, KeyError, TypeError):
        return frozenset()


def mark_for_deletion(store: Records, paths: Iterable[str]) -> None:
    store.write_record(CONDEMNED, json.dumps({"at": time.time(), "paths": sorted(paths)}).encode())


def clear_deletion_marks(store: Records) -> None:
    store.delete_record(CONDEMNED)
