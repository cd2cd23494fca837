"""Who is at work on a batch, written down in the store, so that two do not take the same recordings.

A lease is renewed while its batch runs. A batch that was killed leaves it behind: whoever comes next, on this machine at
once and on another one when it has run out, takes over its campaign, and with it what it had done and what had failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator

from infra.compute import get_store
from infra.processes import has_exited, this_process
from infra.settings import get_settings
from speech.stored import parsed
from stenoflow.errors import TransientError
from stenoflow.types import Frozen

_SETTLE = 0.5
"""Seconds after which whoever wrote a lease looks whether it is still theirs: of two at the same moment the last one wins."""


class BatchBusy(TransientError):
    """Another batch of the same recordings, options and outputs is at work."""

    code = "batch_busy"


class Lease(Frozen):
    campaign: str
    run: str
    """The batch's flow run."""
    process: str
    """As `infra.processes` names it, and a word of this lease's own."""
    until: float
    """Seconds since 1970."""


@contextlib.asynccontextmanager
async def leased(key: str, run: str) -> AsyncIterator[str]:
    """Hold the lease on the batch `key` inside the block; yields the campaign. Raises BatchBusy when another batch holds it.

    Left normally the lease is given back. Left by an error or a cancel it stays, run out, so that the next batch goes on.
    """
    lease = await _acquire(key, run)
    holder = asyncio.current_task()
    assert holder is not None
    ended = asyncio.Event()
    renewing = asyncio.create_task(_renew(key, lease, holder, ended))
    finished = False
    try:
        yield lease.campaign
        finished = True
    except asyncio.CancelledError:
        if not renewing.done():
            raise
        holder.uncancel()
        raise _busy("") from None
    finally:
        ended.set()
        # Not cancelled: a renewal that is being written would bring back what is given back.
        if not await renewing:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(_give_back, key, lease, finished)


def _give_back(key: str, lease: Lease, finished: bool) -> None:
    if finished:
        get_store().delete_record(_name(key))
    else:
        _write(key, lease.model_copy(update={"until": 0.0}))


async def _acquire(key: str, run: str) -> Lease:
    seconds = get_settings().batch.lease_seconds
    found = await asyncio.to_thread(_read, key)
    if found is not None and not _free(found, run):
        found = await _wait_until_free(key, found, run)
    lease = Lease(
        # Of this run's own where there is none to take over: a retry of the batch finds what it did itself.
        campaign=(found.campaign if found else "") or hashlib.sha256(run.encode()).hexdigest()[:12],
        run=run,
        process=this_process(),
        until=time.time() + seconds,
    )
    await asyncio.to_thread(_write, key, lease)
    await asyncio.sleep(_SETTLE)
    now = await asyncio.to_thread(_read, key)
    if now is None or now.process != lease.process:
        raise _busy(now.run if now else "")
    return lease


async def _wait_until_free(key: str, found: Lease, run: str) -> Lease | None:
    """Wait while the lease is not renewed; it is that of a batch that was killed on another machine, or of a living one."""
    first = found.until
    while True:
        await asyncio.sleep(min(max(found.until - time.time(), 0.0) + 0.1, 1.0))
        now = await asyncio.to_thread(_read, key)
        if now is None or _free(now, run):
            return now
        if now.until != first:
            raise _busy(now.run)


def _busy(run: str) -> BatchBusy:
    return BatchBusy(
        f"Another batch of these recordings with these options is running (run {run or 'unknown'}); wait for it or cancel it."
    )


def _free(lease: Lease, run: str) -> bool:
    """Run out, its process gone, or that of an earlier execution of the same run, which Prefect has ended."""
    return lease.until <= time.time() or lease.run == run or has_exited(lease.process)


async def _renew(key: str, lease: Lease, holder: asyncio.Task[object], ended: asyncio.Event) -> bool:
    """Renew the lease until it has `ended`; or cancel its holder: the machine slept, and another batch has taken over. Whether it has."""
    seconds = get_settings().batch.lease_seconds
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), seconds / 4)
            return False
        with contextlib.suppress(Exception):  # a store that is away is asked again; the lease lasts for three more tries
            now = await asyncio.to_thread(_read, key)
            if now is not None and now.process != lease.process:
                if not ended.is_set():
                    holder.cancel()
                return True
            await asyncio.to_thread(_write, key, lease.model_copy(update={"until": time.time() + seconds}))


def _name(key: str) -> str:
    return f"batches/{key}"


def _read(key: str) -> Lease | None:
    """The lease; an unreadable one (damaged, or of a later version) counts as acquired, by an unknown run, until its expiry."""
    content = get_store().read_record(_name(key))
    try:
        return parsed(Lease, content) if content else None
    except ValueError:
        written = (file.modified for file in get_store().files("records/batches") if file.path == f"records/{_name(key)}")
        until = next(written, 0.0) + get_settings().batch.lease_seconds
        return Lease(campaign="", run="", process="", until=until)


def _write(key: str, lease: Lease) -> None:
    get_store().write_record(_name(key), lease.model_dump_json().encode())
