"""Stages whose run was cancelled end as cancelled in Prefect's views; Prefect itself would call them crashed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect.context import FlowRunContext
from prefect.states import Cancelled

from flows.prefect_compat.engine import keep_no_result

_ASKING = 3.0
"""Seconds that a process which is being ended waits for Prefect's API."""

C = TypeVar("C")


@dataclass
class Stop:
    """Whether a stop of this run was requested."""

    asked: bool = False


_stop: ContextVar[Stop | None] = ContextVar("steno_stop", default=None)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """What stages inside this block look at when they are cancelled."""
    stop = Stop()
    token = _stop.set(stop)
    try:
        yield stop
    finally:
        _stop.reset(token)


def ends_cancelled(stage: Callable[[C], Awaitable[dict[str, Any]]]) -> Callable[[C], Awaitable[Any]]:
    """Have the task of `stage` end in the state Cancelled when its run was cancelled while it was at work."""

    @functools.wraps(stage)
    async def body(call: C) -> Any:
        try:
            return await stage(call)
        except asyncio.CancelledError:
            if not await stop_requested():
                raise
            keep_no_result()
            return Cancelled(message="The run was cancelled during the stage.")

    return body


async def stop_requested() -> bool:
    """Whether the run is being cancelled; a worker only signals its process to end, without the reason."""
    stop, context = _stop.get(), FlowRunContext.get()
    if stop is not None and stop.asked:
        return True
    if context is None or context.flow_run is None:
        return False
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_ASKING):
            run = await context.client.read_flow_run(context.flow_run.id)  # type: ignore[misc]
            return run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled())
    return False
