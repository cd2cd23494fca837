"""What the recordings of one command share: how they are shown, the server they report to, and how they are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.processes import ending_signals, write_nowhere
from stenoflow.cli.errors import INTERRUPTED
from stenoflow.cli.pipe import CLOSED, ending_with_reader, reader_left

if TYPE_CHECKING:
    from asyncio import Task

    from prefect import Flow
    from rich.console import Console

    from flows.local_server.server import TemporaryServer
    from flows.request import TranscribeRequest
    from flows.result import TranscribeResult
    from flows.settled import Ledger
    from infra.progress import StageEvent
    from stenoflow.cli.ahead import Ahead
    from stenoflow.cli.progress import StageTable


UPKEEP = 5.0
"""Seconds that a command waits until what earlier ones left is cleared away: when it is done, or before it takes that up again."""


@dataclass(frozen=True)
class Display:
    """What the user wants to see."""

    as_json: bool
    quiet: bool
    verbose: bool
    debug: bool

    def console(self) -> Console | None:
        """A terminal to draw progress on, when there is one and nothing else claims it."""
        from stenoflow.cli.progress import terminal

        return None if self.as_json or self.quiet or self.verbose else terminal()


@dataclass
class Session:
    """What the recordings of one command have in common."""

    display: Display
    console: Console | None
    server: TemporaryServer | None = None
    table: StageTable | None = None
    """Of the recording at work."""
    ledger: Ledger | None = None
    """Of the task runs that ended here; there once Prefect is ready."""
    run_id: str = ""
    """The flow run's, once its first stage has begun."""
    upkeep: Task[None] | None = None
    """Of what earlier commands left behind."""
    loading: Task[None] | None = None
    """Of what the first recording's stages need; stored, since asyncio drops tasks without a reference."""
    ahead: Ahead | None = None
    """What is computed while the server starts."""
    elsewhere: bool = False
    """Whether the run is a worker's, which goes on when this command is interrupted."""


@contextlib.contextmanager
def interruptible(session: Session) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal cancel the run, which ends at the next batch; the second time the process ends as it is."""
    import asyncio

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    seen = 0

    def interrupt(number: signal.Signals) -> None:
        nonlocal seen
        seen += 1
        if number not in (signal.SIGINT, signal.SIGTERM):
            write_nowhere()  # the terminal is gone, and every line would fail
        if seen > 1:
            if session.console is not None:
                session.console.show_cursor(True)
            os._exit(INTERRUPTED)  # the temporary server ends with us, files are written aside and moved
        task.cancel()
        if session.table is not None:
            session.table.stop()

    def end_once() -> None:
        if not seen:
            interrupt(signal.SIGTERM)

    signals = ending_signals()
    for number in signals:
        loop.add_signal_handler(number, interrupt, number)
    try:
        with ending_with_reader(lambda: loop.call_soon_threadsafe(end_once)):
            yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def mark_cancelled(run_id: str) -> None:
    """Have Prefect show the run as cancelled by its user: left alone, it counts as crashed."""
    if not run_id:
        return
    from uuid import UUID

    from prefect import get_client
    from prefect.states import Cancelled

    with contextlib.suppress(Exception):
        async with get_client() as client:
            await client.set_flow_run_state(UUID(run_id), Cancelled(message="Interrupted at the terminal."), force=True)


def leave_unfinished_stages(session: Session) -> None:
    """End now: Python would wait for the threads of stages that have not reached their next batch in the time given."""
    if session.ledger is not None:
        from flows.prefect_compat.engine import send_logs

        with contextlib.suppress(Exception):
            send_logs(timeout=3)
    if session.server is not None:
        session.server.stop()
    sys.stdout.flush()
    os._exit(CLOSED if reader_left() else INTERRUPTED)


async def ready(
    session: Session, table: StageTable, request: TranscribeRequest | None = None
) -> Flow[[TranscribeRequest], Awaitable[TranscribeResult]]:
    """The flow, and a Prefect API for it to talk to. While its server starts, Prefect is imported, and the `request` begun with.

    Raises ApiUnreachable.
    """
    if session.ledger is None:
        import asyncio

        from flows.local_server import server

        table.note = "starting"
        session.server = server.start(verbose=session.display.verbose)
        if session.server is not None and request is not None:
            await asyncio.to_thread(begin_ahead, session, table, request)
        await asyncio.to_thread(import_flow)
        from flows.prefect_compat.engine import keep_signals

        keep_signals()
        if session.server is not None:
            table.note = "starting Prefect (the first start creates its database)"
            if session.ahead is not None and request is not None:
                session.loading = asyncio.create_task(asyncio.to_thread(warm_up, request))
            await asyncio.to_thread(session.server.wait)
        from flows.settled import Ledger

        session.ledger = Ledger()
        session.upkeep = asyncio.create_task(end_orphans())
    return import_flow()


async def reused(session: Session, table: StageTable, request: TranscribeRequest) -> TranscribeResult | None:
    """The result of a recording of which everything is in the store, with no run of it; None where one has to be made.

    A configured Prefect API is shown every run.
    """
    from flows.local_server import server

    if server.find_api():
        return None
    from flows.stored import from_store
    from infra.progress import listening
    from infra.settings import get_settings

    table.note = "looking for what is there already"
    with listening(_listener(session, request.shown_as, table)):
        return await from_store(request, get_settings())


async def cleared(session: Session) -> None:
    """Return when what earlier commands left running has been ended, or that takes too long."""
    import asyncio

    if session.upkeep is not None:
        await asyncio.wait({session.upkeep}, timeout=UPKEEP)


async def settled(session: Session) -> None:
    """Return when nothing of this command is on its way to Prefect any more."""
    await cleared(session)
    if session.server is not None and session.ledger is not None:
        await session.ledger.settled()


async def end_orphans() -> None:
    """End what killed commands of this machine left running in Prefect's views, beside the work of this one."""
    from flows import orphans

    with contextlib.suppress(Exception):  # the next command tries again
        await orphans.end_orphans()


def import_flow() -> Flow[[TranscribeRequest], Awaitable[TranscribeResult]]:
    from flows.transcribe import transcribe as transcribe_flow

    return transcribe_flow


def begin_ahead(session: Session, table: StageTable, request: TranscribeRequest) -> None:
    """Begin with the first stages of the `request`, where they are computed in this process; returns when Prefect may be imported."""
    from infra.compute import computes_here
    from infra.settings import get_settings

    settings = get_settings()
    if computes_here(settings, request.compute):
        from stenoflow.cli.ahead import Ahead

        session.ahead = Ahead(request, settings, table)
        session.ahead.wait()


def warm_up(request: TranscribeRequest) -> None:
    """Have in memory what the stages of the run will use, and what Prefect imports when it first writes down a run's parameters."""
    import fastapi.encoders  # noqa: F401

    from infra import compute
    from infra.settings import get_settings

    compute.warm_up(get_settings(), request.model, request.language, diarize=request.diarize)


@contextlib.contextmanager
def drawn(session: Session, table: StageTable, *, keep: bool) -> Iterator[None]:
    """Draw the table while the block lasts; `keep` leaves it there. Without a terminal, write a line now and then."""
    from stenoflow.cli.progress import lines, live

    display = session.display
    if session.console is not None:
        with live(session.console, table, keep=keep):
            yield
    elif display.as_json or display.quiet or display.verbose:
        yield
    else:
        with lines(table):
            yield


@contextlib.contextmanager
def displayed(session: Session, shown_as: str, table: StageTable) -> Iterator[None]:
    """Show every stage event of the recording `shown_as` while the block lasts."""
    from infra.progress import listening

    session.run_id = ""
    assert session.ledger is not None
    with listening(session.ledger), listening(_listener(session, shown_as, table)):
        yield


def _listener(session: Session, shown_as: str, table: StageTable) -> Callable[[StageEvent], None]:
    """What shows the stage events of the recording `shown_as`."""
    from stenoflow.cli.progress import print_event

    show: Callable[[StageEvent], None] = print_event(shown_as) if session.display.as_json else table

    def listener(event: StageEvent) -> None:
        session.run_id = event.run
        show(event)

    return listener
